"""Write what the documentation derives from code: option tables and the command line's help. `--check` fails if any is stale."""

from __future__ import annotations

import json
import re
import sys
from inspect import signature
from pathlib import Path

import generate_api
import generate_benchmarks
import generate_latency
import generate_sst2
import generate_verdicts
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.core.contract import Contract, Target
from limbeck.core.environment import SWITCHES, TOLERATED, variables
from limbeck.core.fields import table
from limbeck.core.plan import Gate, Recovery, Stage, Training
from limbeck.core.proof import Proof
from limbeck.evaluation.studies import ALL as STUDIES
from limbeck.intake.runfile import TABLES as TABLES_BY_ENVIRONMENT
from limbeck.intake.runfile import RunOptions, TaskEntry
from limbeck.mechanics.on_policy import OnPolicy
from limbeck.mechanics.order import Curriculum
from limbeck.mechanics.terms import ALL
from limbeck.mechanics.terms.entry import Entry, options_of
from limbeck.mechanics.views import Views
from limbeck.planner.recipes import ALL as RECIPES
from limbeck.techniques import cards

DOCS = Path(__file__).parent
RECORDS = DOCS.parent / "benchmarks" / "records"
MARK = re.compile(r"<!-- config -->(?:.*?<!-- /config -->)?", re.DOTALL)
TABLES = (
    ("[task]", TaskEntry),
    ("[contract]", Contract),
    ("[target]", Target),
    ("[run]", RunOptions),
    ("[proof]", Proof),
    ("[[stage]]", Stage),
    ("[stage.gate]", Gate),
    ("[stage.recovery]", Recovery),
    ("training", Training),
    ("Views", Views),
)
COMMANDS = (
    "demo",
    "init",
    "run",
    "status",
    "runs",
    "diff",
    "rollback",
    "verify",
    "gc",
    "export",
    "import",
    "package",
    "evidence import",
    "report",
    "advise",
    "repeat",
    "analyze",
    "doctor",
    "evaluate",
    "compare",
    "techniques",
    "terms",
    "studies",
    "runtimes",
)


def pages() -> dict[Path, str]:
    """Every generated page, by path."""
    found = {}
    for name, card in cards().items():
        path = DOCS / "techniques" / f"{name}.md"
        if path.exists():
            block = f"<!-- config -->\n{table(card.config)}\n<!-- /config -->"
            found[path] = MARK.sub(lambda _, b=block: b, path.read_text())
    for factory in ALL:
        path = DOCS / "terms" / f"{factory.__name__}.md"
        if path.exists():
            found[path] = _filled(path.read_text(), "options", table(options_of(factory)) if signature(factory).parameters else "None.")
    readme = DOCS.parent / "README.md"
    found[readme] = _filled(_filled(readme.read_text(), "demo", f"```text\n{(RECORDS / 'demo.txt').read_text().rstrip()}\n```"), "fashion", _fashion())
    listed = DOCS / "studies" / "index.md"
    found[listed] = _filled(_filled(listed.read_text(), "studies", _studies()), "options", table(Proof))
    configuration = DOCS / "configuration.md"
    found[configuration] = _filled(configuration.read_text(), "environment", environment_table())
    cache = DOCS / "cache.md"
    found[cache] = _filled(cache.read_text(), "speed", _speed())
    views = DOCS / "views.md"
    found[views] = _filled(_filled(views.read_text(), "options", table(Views)), "speed", _views() if (RECORDS / "views_speed.json").exists() else "Not measured yet.")
    language = DOCS / "language-models.md"
    found[language] = _filled(_filled(language.read_text(), "options", table(OnPolicy)), "char-lm", _char_lm())
    crossing = DOCS / "cross-architecture.md"
    found[crossing] = _filled(_filled(crossing.read_text(), "crossing", _crossing()), "cross-architecture", _cross_architecture())
    sentiment = DOCS / "sst2.md"
    found[sentiment] = _filled(sentiment.read_text(), "sst2", generate_sst2.tables())
    ledgers = DOCS / "benchmarks.md"
    found[ledgers] = ledgers.read_text()
    for mark, name, rendered in generate_benchmarks.PAGES:
        found[ledgers] = _filled(found[ledgers], mark, rendered(generate_benchmarks.record(name)))
    timing = DOCS / "latency.md"
    found[timing] = timing.read_text()
    for mark, name, rendered in generate_latency.PAGES:
        found[timing] = _filled(found[timing], mark, rendered(generate_latency.record(name)))
    proving = DOCS / "evidence.md"
    found[proving] = proving.read_text()
    for mark, rendered in generate_verdicts.PAGES:
        found[proving] = _filled(found[proving], mark, rendered(generate_verdicts.record()))
    strategies = DOCS / "strategies.md"
    found[strategies] = _filled(_filled(strategies.read_text(), "curriculum", table(Curriculum)), "entry", table(Entry))
    recipes = DOCS / "recipes.md"
    found[recipes] = recipes.read_text()
    for recipe in RECIPES:
        found[recipes] = _filled(found[recipes], recipe.name, table(recipe.config))
    found[DOCS / "api.md"] = generate_api.page()
    found[DOCS / "reference.md"] = "\n\n".join(("# Reference", "Generated from the code by `make docs`.", *_options(), *_help())) + "\n"
    return found


def _filled(text: str, mark: str, block: str) -> str:
    """A page with what stands between `<!-- mark -->` and `<!-- /mark -->` replaced."""
    pattern = re.compile(f"<!-- {mark} -->(?:.*?<!-- /{mark} -->)?", re.DOTALL)
    return pattern.sub(lambda _: f"<!-- {mark} -->\n{block}\n<!-- /{mark} -->", text)


def environment_table() -> str:
    """Every variable that limbeck reads: the option that it sets, its type, rule and meaning."""
    rows = ["| variable | as | type | rule | meaning |", "| --- | --- | --- | --- | --- |"]
    for v in variables(TABLES_BY_ENVIRONMENT).values():
        rows.append(f"| `{v.name}` | `[{v.table}]` `{v.option.name}` | {v.option.type_name} | {v.option.rule} | {v.option.doc} |".replace("  ", " "))
    rows += [f"| `{name}` | a switch | true or false | | {meaning} |" for name, meaning in SWITCHES.items()]
    rows += [f"| `{name}` | | text | | {meaning} |" for name, meaning in TOLERATED.items()]
    return "\n".join(rows)


def _studies() -> str:
    """Every study: what it shows, and the limits of a contract that it answers."""
    rows = ["| study | what it shows | limits that it answers | |", "| --- | --- | --- | --- |"]
    return "\n".join([*rows, *(f"| [`{s.name}`]({s.name}.md) | {s.summary} | {', '.join(f'`{x}`' for x in s.limits)} | {'of the machine' if s.here else ''} |" for s in STUDIES)])


def _fashion() -> str:
    """The table of `benchmarks/fashion.py`, from its record."""
    runs = json.loads((RECORDS / "fashion.json").read_text())["runs"]
    rows = ["| | accuracy on test | kept (95 % bound) | bytes | times smaller | times faster (p50) |", "| --- | --- | --- | --- | --- | --- |"]
    first = runs["int8"]["baseline"]
    rows.append(f"| teacher, FP32 | {first['metric']['value']:.2%} | | {first['size_bytes']:,} | 1 | 1 |")
    names = {"int8": "`quantize` alone", "compound": "`distill` into a ResNet-8, then `quantize`"}
    for key, name in names.items():
        run = runs[key]
        speed = next(v["measured"] for v in run["contract"] if v["gate"] == "speedup_p50")
        rows.append(
            f"| {name} | {run['final']['metric']['value']:.2%} | {run['retention']['value']:.3f} (≥ {run['retention']['low']:.3f}) "
            f"| {run['final']['size_bytes']:,} | {run['ratios']['size']:.1f} | {speed:.1f} |"
        )
    control = runs["compound"]["control"]
    kept = f"{control['retention']['value']:.3f} (≥ {control['retention']['low']:.3f})"
    rows.append(f"| control: that ResNet-8 in FP32 without a teacher | {control['metric']['value']:.2%} | {kept} | {control['size_bytes']:,} | | |")
    return "\n".join(rows)


def _speed() -> str:
    """What `benchmarks/distillation_speed.py` measured, from its record: each figure beside its bar, met or not."""
    record = json.loads((RECORDS / "distillation_speed.json").read_text())
    bars, steps, tokens = record["bars"], record["steps"], record["tokens"]
    rows = ["| measured | value (99 % interval) | bar | met |", "| --- | --- | --- | --- |"]

    def row(what: str, at: dict[str, float], bar: float | None = None) -> None:
        met = "" if bar is None else "yes" if at["high"] <= bar else "by the median alone" if at["value"] <= bar else "**no**"
        rows.append(f"| {what} | {at['value']:.3f} ({at['low']:.3f}–{at['high']:.3f}) | {'' if bar is None else f'≤ {bar:.2f}'} | {met} |")

    for name, teacher in steps["teachers"].items():
        row(f"{name}: the teacher's forward pass, in the student's", teacher["cost"])
        row(f"{name}: cached step, in plain steps", teacher["cached_step"], bars["cached_step"])
        row(f"{name}: live step, in plain steps", teacher["live_step"])
    whole = record["whole_runs"]
    for each in (whole, record.get("whole_runs_heavy")):
        for views, found in each["ratio_by_views"].items() if each else ():
            under = f"{each['epochs']} epochs, {views} view{'s' * (views != '1')}"
            row(f"{each['teacher']}: whole run of {under}, cached in live (least and most of {len(each['seconds'][f'live_{views}'])})", found, bars["whole_run"])
    for student, share in steps["views_share"].items():
        row(f"crop and flip, in plain steps of a ResNet-8 (w {'8' if student == 'plain_w8' else '16'}) at batch {record['setting']['batch']}", share, bars["views_share"])
    row(f"sparse step of a small language model, vocabulary {tokens['vocabulary']:,}, k = {tokens['k']}, in plain steps", tokens["sparse_step"])
    row("its live step, in plain steps", tokens["live_step"])
    met = "yes" if tokens["bytes_a_token"] <= bars["bytes_a_token"] else "**no**"
    rows.append(f"| bytes a token on disk, all files counted (dense: {tokens['dense_fp16_bytes_a_token']:,}) | {tokens['bytes_a_token']:.2f} | ≤ {bars['bytes_a_token']} | {met} |")
    computed = ["| | " + " | ".join(f"{v} view{'s' * (v != '1')}" for v in ("1", "2", "4", "8")) + " |", "| --- | --- | --- | --- | --- |"]
    computed += [f"| {name} | " + " | ".join(f"{t['whole_run_computed'][v]:.2f}" for v in ("1", "2", "4", "8")) + " |" for name, t in steps["teachers"].items()]
    note = (
        f"Whole runs of {whole['epochs']} epochs, cached in live, computed from the measured steps and building times. "
        "A cache is built once a view, so few views and a dear teacher gain most."
    )
    setting, at = record["setting"], f"{record['machine']['processor']}, one thread, torch {record['versions']['torch']}"
    about = f"{at}, {record['time'][:10]}, commit {record['commit']}; student {setting['student']}, batch {setting['batch']}."
    return "\n".join((*rows, "", note, "", *computed, "", about))


def _char_lm() -> str:
    """What `benchmarks/char_lm.py` found, from its record: each arm's seeds, and what it has more than the others."""
    record = json.loads((RECORDS / "char_lm.json").read_text())
    setting, runs = record["setting"], record["runs"]
    names = {"none": "the text alone", "forward": "forward KL", "reverse": "reverse KL", "on_policy": f"on-policy, {setting['on_policy']['student_share']:.0%} of the steps"}
    rows = ["| | perplexity, by seed | nats of samples, by seed |", "| --- | --- | --- |"]
    rows.append(f"| the teacher (true text: {runs['teacher']['text_nats']:.3f} nats) | {runs['teacher']['perplexity']:.3f} | {runs['teacher']['sample_nats']:.3f} |")
    for arm, name in {"start": "where all arms begin", **names}.items():
        cells = [" / ".join(f"{runs[f'{seed}-{arm}'][key]:.3f}" for seed in setting["seeds"]) for key in ("perplexity", "sample_nats")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    compared = ["| difference | perplexity (95 %) | by seed | nats of samples (95 %) | by seed |", "| --- | --- | --- | --- | --- |"]
    for which, found in record["against"].items():
        arm, _, other = which.partition(" − ")
        cells = [
            cell
            for key in ("perplexity", "sample_nats")
            for at in (found[key],)
            for cell in (f"{at['value']:+.3f} ({at['low']:+.3f} to {at['high']:+.3f})", " / ".join(f"{x:+.3f}" for x in at["by_seed"]))
        ]
        compared.append(f"| {names[arm]} − {names[other]} | {' | '.join(cells)} |")
    teacher, student, windows = setting["teacher"], setting["student"], setting["windows"]
    at = f"{record['core_hours']:.2f} core-hours; {record['machine']['processor']}, one thread, torch {record['versions']['torch']}"
    about = (
        f"Teacher: {teacher['parameters']:,} parameters, {teacher['epochs']} epochs of {windows['train']:,} windows of {setting['length']} characters. "
        f"Student: {student['parameters']:,} parameters, {student['epochs'][0]} + {student['epochs'][1]} epochs. "
        f"{windows['test']:,} test windows, {setting['prompts']} of them continued. {at}, {record['time'][:10]}, commit {record['commit']}."
    )
    return "\n".join((*rows, "", *compared, "", about))


def _crossing() -> str:
    """Which terms on features take a map on one side and tokens on the other, from the record of `benchmarks/cross_architecture.py`."""
    record = json.loads((RECORDS / "cross_architecture.json").read_text())
    ways = [way for way in next(iter(record["terms"].values())) if way != "reads"]
    told = {name: row for name, row in record["terms"].items() if row["reads"] == "features"}
    both = [name for name, row in told.items() if not any(row[way] for way in ways)]
    rows = ["Both ways: " + ", ".join(f"[{name}](terms/{name}.md)" for name in both) + ".", "", "| refused | " + " | ".join(ways) + " |", "| --- |" + " --- |" * len(ways)]
    rows += [f"| [{name}](terms/{name}.md) | " + " | ".join(row[way] or "works" for way in ways) + " |" for name, row in told.items() if name not in both]
    return "\n".join(rows)


def _cross_architecture() -> str:
    """What each arm of `benchmarks/cross_architecture.py` reached, from its record."""
    record = json.loads((RECORDS / "cross_architecture.json").read_text())
    setting, compared = record["setting"], record["compared"]
    heads = [f"| | {way}: accuracy (by seed) | more than no teacher (90 %) " for way in compared]
    rows = [heads[0] + "".join(h[2:] for h in heads[1:]) + "|", "| --- |" + " --- | --- |" * len(compared)]
    for arm in sorted(next(iter(compared.values())), key=lambda name: (name != "no teacher", name)):
        cells = []
        for found in compared.values():
            at = found[arm]
            gain = "" if arm == "no teacher" else f"{at['gain']:+.1%} ({at['low']:+.1%} to {at['high']:+.1%})"
            cells += [f"{at['accuracy']:.1%} ({at['least']:.1%}–{at['most']:.1%})", gain]
        rows.append(f"| {arm} | " + " | ".join(cells) + " |")
    teachers = " and ".join(f"{name} {at['accuracy']:.1%} ({at['parameters']:,} parameters)" for name, at in record["teachers"].items())
    students = " and ".join(f"{name} ({count:,} parameters)" for name, count in record["students"].items())
    about = (
        f"{setting['data']}, {setting['train']} to learn from, {setting['test']} to test on; {setting['epochs']} epochs, {setting['seeds']} seeds. Teachers: {teachers}. "
        f"Students: {students}. Weights as published, or a hundredth, none tuned; {record['core_hours']:.2f} hours, {record['machine']['processor']}, one thread, "
        f"torch {record['versions']['torch']}, {record['time'][:10]}, commit {record['commit']}. The interval is over the test samples; seeds differ by what the range shows."
    )
    return "\n".join((*rows, "", about))


def _views() -> str:
    """What `benchmarks/views_speed.py` measured, from its record: each view's share of a step beside the bar."""
    record = json.loads((RECORDS / "views_speed.json").read_text())
    setting, bar = record["setting"], record["bar"]
    columns = " | ".join(f"in plain steps of a ResNet-8, {student} (99 %)" for student in setting["students"])
    rows = [f"| view | ms | {columns} | ≤ {bar:g} |", "| --- | --- | " + "--- | " * (len(setting["students"]) + 1)]
    for name, shares in record["share"].items():
        cells = " | ".join(f"{at['value']:.3f} ({at['low']:.3f}–{at['high']:.3f})" for at in shares.values())
        met = "" if name not in record["met"] else "yes" if record["met"][name] else "**no**"
        rows.append(f"| {name} | {record['median_ms'][name]:.1f} | {cells} | {met} |")
    machine = f"{record['machine']['processor']}, one thread, torch {record['versions']['torch']}, {record['time'][:10]}, commit {record['commit']}"
    about = f"Batch {setting['batch']} of {setting['sides']} images, {setting['turns']} turns of {setting['steps_a_turn']} steps, all in turn in one process. {machine}."
    return "\n".join((*rows, "", about))


def _options() -> list[str]:
    return ["## The run file", *(part for title, config in TABLES for part in (f"### `{title}`", (config.__doc__ or "").strip().split("\n")[0], table(config)))]


def _help() -> list[str]:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    shown = [(c, runner.invoke(app, [*c.split(), "--help"], prog_name="limbeck").output) for c in COMMANDS]
    return ["## The command line", *(f"### `limbeck {name}`\n\n```text\n{_plain(text)}\n```" for name, text in shown)]


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def main() -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} is stale; run `make docs`\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
