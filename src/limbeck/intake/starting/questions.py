"""What `limbeck init` asks, as data, and the interview that settles it: from flags, from a person, or by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from limbeck.core.errors import ConfigError, TaskError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing to know. Its flag is `--<key>`."""

    key: str
    text: str
    consequence: str
    kind: Literal["text", "choice", "yes", "number", "list"] = "text"
    default: str | None = None
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")


Ask = Callable[[Question, str], str]  # the question, and what was wrong with the answer before ("" at first) → the answer

MODEL = Question(
    key="model", text="Which trained model?", consequence="file.py:Class, a transformers folder or name, timm:NAME or file.onnx; none: one is trained on your data", default="none"
)
WEIGHTS = Question(
    key="weights", text="Where are its weights?", consequence="a .safetensors or .pt file with the state dict; none: the model loads them itself, or is trained here"
)
DATA = Question(key="data", text="Which data is it judged on?", consequence="a folder of images, a CSV or TSV file, or file.py:name that gives the splits")
TRAIN = Question(
    key="train_teacher", text="Write train_teacher.py?", consequence="limbeck compresses trained models: without one, this trains it on your data first", kind="yes", default="yes"
)
KIND = Question(key="kind", text="What are the labels?", consequence="classes are told apart, values are come close to", kind="choice", choices=("classification", "regression"))
METRIC = Question(key="metric", text="Judged by which metric?", consequence="every verdict speaks of it", kind="choice")
LIMIT = Question(key="limit", text="Which limits must hold?", consequence="the run passes only if all of them do", kind="list")
RUNTIME = Question(
    key="runtime",
    text="Which runtime will it be deployed on?",
    consequence="artifacts are made and measured for it",
    kind="choice",
    default="onnxruntime",
    choices=("onnxruntime", "torch"),
)
THREADS = Question(key="threads", text="How many threads may one inference use?", consequence="latency is measured with so many", kind="number", default="1")
EPOCHS = Question(key="epochs", text="How many epochs of training?", consequence="more learns more and takes longer", kind="number")
SLICE = Question(key="slice", text="Which slices matter?", consequence="columns whose values are looked at by themselves; none: only the whole is", kind="list", default="none")
TEXT = Question(key="text", text="Which column holds the text?", consequence="it is what the model reads", kind="choice")
LABEL = Question(key="label", text="Which column holds the label?", consequence="it is what the model must say", kind="choice")
IGNORE = Question(
    key="ignore", text="Which columns are left out?", consequence="the model doesn't see them; leave out what isn't known when it is used", kind="list", default="none"
)
CLASSES = Question(key="classes", text="In which order are the classes?", consequence="the i-th is the model's output i: a wrong order looks like a bad model", kind="list")
SIZE = Question(key="image_size", text="To how many pixels is each side resized?", consequence="fewer are faster and lose detail", kind="number")
NORMALISE = Question(
    key="normalise",
    text="How are pixels normalised?",
    consequence="as the model was trained: a wrong choice shows as a low baseline",
    kind="choice",
    choices=("train", "imagenet", "none"),
)
SPLIT = Question(
    key="split_column", text="Which column says the split?", consequence="none: 70/15/15 by a hash of the sample, which stays when rows come", kind="choice", default="none"
)
ALL = (MODEL, WEIGHTS, DATA, TRAIN, KIND, METRIC, LIMIT, RUNTIME, THREADS, EPOCHS, SLICE, TEXT, LABEL, IGNORE, CLASSES, SIZE, NORMALISE, SPLIT)


@dataclass
class Interview:
    """Answers as they are settled. `given` are flags; `ask` is None where nobody can be asked."""

    given: Mapping[str, Any]
    ask: Ask | None = None
    decided: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def settle(self, question: Question, check: Callable[[Any], T], *, default: str | None = None, choices: tuple[str, ...] = ()) -> T:
        """The answer, checked: the flag's, else what is said when asked, else the default.

        A wrong answer is asked about again where somebody can be asked; else it is the error.
        Raises: ConfigError that names the flag, for an answer that is missing or wrong.
        """
        question = replace(question, default=question.default if default is None else default, choices=choices or question.choices)
        words = self.given.get(question.key)
        how, problem = ("flag" if words is not None else "default"), ""
        if words is None and self.ask is None:
            words = question.default
            if words is None:
                raise ConfigError(f"{question.flag} must be given: {question.text} ({question.consequence}).{_known(question)} Nobody can be asked here.")
        while True:
            if words is None and self.ask is not None:
                words = self.ask(question, problem)
                how = "default" if words == question.default else "asked"
            try:
                value = check(_read(question, words))
            except (ConfigError, TaskError) as error:
                if self.ask is None:
                    raise ConfigError(f"{question.flag} {_shown(words)}: {error}") from error
                words, problem = None, str(error)
                continue
            self.decided.append({"key": question.key, "value": _shown(words), "how": how, "consequence": question.consequence})
            return value

    def note(self, text: str) -> None:
        """Something that the reader should know."""
        self.notes.append(text)


def _known(question: Question) -> str:
    return f" One of: {', '.join(question.choices)}." if question.choices else ""


def _read(question: Question, words: Any) -> Any:
    if question.kind == "list":
        return several(words) if isinstance(words, str) else list(words)
    if question.kind == "choice" and words not in question.choices:
        raise ConfigError(f"must be one of {', '.join(question.choices)}, got {words!r}. Name one of them.")
    return str(words)


def _shown(words: Any) -> str:
    return words if isinstance(words, str) else ", ".join(map(str, words)) if isinstance(words, (list, tuple)) else str(words)


def yes(words: str) -> bool:
    """Raises ConfigError unless it is a yes or a no."""
    if words.lower() in ("yes", "y", "true"):
        return True
    if words.lower() in ("no", "n", "false"):
        return False
    raise ConfigError(f"must be yes or no, got {words!r}. Say one of them.")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A check for a whole number between two ends."""

    def check(words: str) -> int:
        if not words.isascii() or not words.isdigit() or not low <= int(words) <= high:
            raise ConfigError(f"must be a whole number from {low} to {high}, got {words!r}. Give one.")
        return int(words)

    return check


def several(words: str) -> list[str]:
    """A list from what a person types: entries between commas. `none` is no entry."""
    return [part.strip() for part in words.split(",") if part.strip() and part.strip() != "none"]
