"""What a runtime is: its card, its sessions, and how a feed is fitted to a session's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from limbeck.analysis.flow import Flow
from limbeck.core.candidate import Artifact
from limbeck.core.errors import ArtifactError, near

if TYPE_CHECKING:
    from torch import nn

    from limbeck.mechanics.data import Example

Feed = Mapping[str, np.ndarray]
FREE_AXIS = 16  # the size that `random_feed` gives to a free axis that isn't the batch
KINDS = {"i": "iu", "u": "iu", "f": "f", "b": "b"}  # kind of the declared dtype → kinds that may be cast to it


@dataclass(frozen=True)
class InputSpec:
    """One input of an artifact: the dtype as numpy writes it, and the shape, None where an axis is free.

    axes: The artifact's own name of each axis, where it gives one: free axes of one name are equally long, in all inputs. Or empty.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str | None, ...] = field(default=(), compare=False)


class Session(Protocol):
    """A loaded artifact. Calling it binds the feed and runs one inference: outputs by name.

    Raises: ArtifactError if the feed doesn't fit, or the runtime fails.
    """

    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def __call__(self, feed: Feed) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class OperatorTime:
    """What one operator of the graph that really runs took: the mean of each block of inferences, without what it called.

    Bytes are of one inference, as the runtime moves them: int8 counts one byte a number. Weights aren't inputs here.
    """

    name: str
    operator: str
    block_ms: tuple[float, ...]
    input_bytes: int | None = None
    output_bytes: int | None = None


@dataclass(frozen=True)
class Node:
    """A node of an artifact as it was exported, and the path of the module that it came from ("" is the model itself)."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Sources:
    """Where an artifact's nodes came from, and by module path the bytes of the weights in the file.

    held_bytes: Each weight at its first reader, so that they add up to the file's weights. read_bytes: Each at every reader, but
        for tables, of which a reader takes rows.
    """

    nodes: tuple[Node, ...]
    held_bytes: Mapping[str, int]
    read_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Operators:
    """How a runtime tells what each operator costs.

    export: As the card's `export`, the same bytes, and where each node came from.
    time: artifact, feed, threads, blocks, inferences a block → what each operator took.
    modules: artifact, sources, operators → for each operator the path of its module; None for what the runtime put in itself.
    """

    export: Callable[[Example, Path], tuple[Artifact, Sources]]
    time: Callable[[Artifact, Feed, int, int, int], list[OperatorTime]]
    modules: Callable[[Artifact, Sources, Sequence[OperatorTime]], list[str | None]]


@dataclass(frozen=True)
class Runtime:
    """A runtime's card. Its libraries are imported inside its functions, so a card costs nothing.

    round_to: Channel counts that the target computes without waste are multiples of this.
    suffix: How its files end.
    available: The version that is installed, or None.
    export: Writes the artifact into a folder, which is made; the same module gives the same bytes.
    load: Opens an artifact with this many threads. Raises ArtifactError if it can't.
    describe: What really runs: {"int8": kernels, "float": kernels, "operators": {name: count}, "initializer_bytes": bytes}.
    empty: A trivial artifact, whose session is what memory is counted above.
    operators: What each operator costs, where the runtime can tell.
    modules: What each module costs by itself, run as a module: module, args, kwargs, threads, blocks, calls a block → ms by path and block.
    start: Imports its libraries, as the first load does.
    flow: What passes through an artifact in one inference of a feed.
    beside: Which other files a file loads, where it may.
    """

    name: str
    summary: str
    round_to: int
    suffix: str
    available: Callable[[], str | None]
    export: Callable[[Example, Path], Artifact]
    load: Callable[[Artifact, int], Session]
    describe: Callable[[Artifact], dict[str, Any]]
    empty: Callable[[Path], Artifact]
    operators: Operators | None = None
    modules: Callable[[nn.Module, tuple, Mapping[str, Any], int, int, int], dict[str, tuple[float, ...]]] | None = None
    start: Callable[[], object] | None = None
    flow: Callable[[Artifact, Feed, int], Flow] | None = None
    beside: Callable[[Path], tuple[Path, ...]] | None = None


def fixed_batch(session: Session) -> int | None:
    """How many samples a session takes at once, where its first input's first axis says so; None: any number."""
    return session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None


def bind(feed: Feed, inputs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    """The feed under the session's own names and dtypes: by name where all names match, else in order.

    Raises: ArtifactError if the number of inputs, a name, a kind of dtype, a rank or a fixed axis doesn't fit.
    """
    names = [spec.name for spec in inputs]
    if all(name in feed for name in names):
        found = {name: feed[name] for name in names}
    else:
        found = dict(zip(names, _in_order(feed, names), strict=True))
    return {spec.name: _fitted(found[spec.name], spec) for spec in inputs}


def _in_order(feed: Feed, names: list[str]) -> list[np.ndarray]:
    if len(feed) != len(names):
        raise ArtifactError(f"the artifact takes {len(names)} inputs ({', '.join(names)}), got {len(feed)} ({', '.join(feed)}). Feed each of them once.")
    rest = [key for key in feed if key not in names]  # a name binds by name; what is left binds in order
    unknown = [key for key in rest if not _positional(key)]
    if unknown and len(rest) < len(names):  # some names are the artifact's own, so this one is a mistake and not another naming
        raise ArtifactError(f"the artifact has no input '{unknown[0]}'. {near(unknown[0], names)} Feed its own names, or positions ('0', '1').")
    queue = iter(rest)
    return [feed[name] if name in feed else feed[next(queue)] for name in names]


def _positional(key: str) -> bool:
    return key.partition("_")[0].isdigit()


def _fitted(value: np.ndarray, spec: InputSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if value.dtype != dtype:
        if value.dtype.kind not in KINDS.get(dtype.kind, dtype.kind):
            raise ArtifactError(f"input '{spec.name}' must be {dtype}, got {value.dtype}. Convert it in the task's `inputs`.")
        value = _cast(value, dtype, spec)
    if value.ndim != len(spec.shape) or any(want is not None and want != got for want, got in zip(spec.shape, value.shape, strict=True)):
        wanted = "[" + ", ".join("any" if want is None else str(want) for want in spec.shape) + "]"
        raise ArtifactError(f"input '{spec.name}' must have the shape {wanted}, got {list(value.shape)}. Feed what the artifact was exported for, or export it again.")
    return value


def _cast(value: np.ndarray, dtype: np.dtype, spec: InputSpec) -> np.ndarray:
    if dtype.kind in "iu" and value.size:
        limits = np.iinfo(dtype)
        low, high = int(value.min()), int(value.max())
        if low < limits.min or high > limits.max:
            raise ArtifactError(f"input '{spec.name}' must be {dtype}, got {value.dtype} from {low} to {high}, which doesn't fit. Feed values from {limits.min} to {limits.max}.")
    return value.astype(dtype)


def random_feed(inputs: Iterable[InputSpec], batch: int, seed: int) -> dict[str, np.ndarray]:
    """A feed for an artifact without data: floats standard normal, integers 0 or 1, booleans by a coin.

    Args:
        batch: Size of axis 0 where that is free; other free axes are `FREE_AXIS` (16) long.
    """
    rng = np.random.default_rng(seed)
    feed = {}
    for spec in inputs:
        dtype = np.dtype(spec.dtype)
        shape = tuple(size if size is not None else batch if axis == 0 else FREE_AXIS for axis, size in enumerate(spec.shape))
        if dtype.kind not in "iufb":
            raise ArtifactError(f"input '{spec.name}' is {dtype}, for which there are no random values. Give a task, or a feed of your own.")
        feed[spec.name] = (rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)
    return feed


def artifact_file(artifact: Artifact, suffix: str) -> Path:
    """The one file of this suffix that an artifact is, or that its folder holds. Raises ArtifactError."""
    path = artifact.path
    if path.is_dir():
        found = sorted(path.glob(f"*{suffix}"))
        if len(found) != 1:
            raise ArtifactError(f"folder {path} must hold one {suffix} file, got {len(found)}. Name the file itself.")
        return found[0]
    if not path.is_file():
        raise ArtifactError(f"there is no artifact {path}. Check the path.")
    return path
