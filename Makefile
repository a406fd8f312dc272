# One task runner. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# two pools of threads that fight for the same cores crawl: one thread a process, and several processes at once
ONE = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
JOBS ?= 2

.PHONY: setup demo test test-all check docs site bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints/pins.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c constraints/pins.txt -e ".[test]"
	touch $@

demo: setup
	$(BIN)/limbeck demo

test: setup
	$(ONE) $(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: setup
	$(ONE) $(BIN)/python -m pytest -n $(JOBS)

$(VENV)/.dev: $(VENV)/.ready
	$(BIN)/pip install --quiet -c constraints/pins.txt -e ".[dev]"
	touch $@

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/pyright
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: setup
	$(BIN)/python docs/generate.py

site: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup
	$(ONE) $(BIN)/python benchmarks/overhead.py

clean:
	rm -rf $(VENV) limbeck-demo runs build dist site
