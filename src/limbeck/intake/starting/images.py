"""A folder of images: a sub-folder for each class, below train/, validation/ and test/ or split by a hash of the file name."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.core.require import require
from limbeck.intake.starting.balance import ORDER, check_classes, check_sizes
from limbeck.intake.starting.csvfile import NAMES, SHARES
from limbeck.intake.starting.parts import DataPart
from limbeck.intake.starting.questions import CLASSES, NORMALISE, SIZE, Interview, whole
from limbeck.intake.starting.source import literal, number, place

SUFFIXES = (".png", ".jpg", ".jpeg")
SIDES = (32, 48, 64, 96, 128, 160, 224)
LOOKED_AT = 200  # images from which sizes, channels and figures are read
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
GREY = ("1", "L", "LA", "I", "I;16", "F")
Files = Mapping[str, Mapping[str, list[Path]]]  # split → class → files
IMPORTS = (
    "from pathlib import Path",
    "import numpy as np",
    "import torch",
    "from PIL import Image, ImageOps",
    "from torch import Tensor",
    "from torch.utils.data import Dataset",
    "from limbeck import Views",
)
CODE = Template('''
$finder


class Images(Dataset):
    """Decoded, turned upright, resized and normalised; the folder's name is the class. The same each time: augmentation is `views`."""

    def __init__(self, files: list[Path]):
        self.files = files
        self.ids = [file.relative_to(DATA).as_posix() for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as image:
            upright = ImageOps.exif_transpose(image).convert(MODE).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(upright, dtype=np.float32) / 255).reshape(SIZE, SIZE, -1).permute(2, 0, 1)
        return ((pixels - MEAN) / STD).contiguous(), CLASSES.index(self.files[index].parent.name)
''')
BY_FOLDER = Template('''
def files_of(split: str) -> list[Path]:
    """The images of a split."""
    return sorted(f for name in CLASSES for f in (DATA / split / name).glob("*") if f.suffix.lower() in SUFFIXES)
''')
BY_HASH = Template('''
def split_of(file: Path) -> str:
    """Where an image belongs, by a hash of its class and name: it stays there when others come or go."""
    share = int(hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).hexdigest()[:8], 16) % 100
    return $shares


def files_of(split: str) -> list[Path]:
    """The images of a split$held_out."""
    files = sorted(f for name in CLASSES for f in ($below / name).glob("*") if f.suffix.lower() in SUFFIXES)
    return [f for f in files if split_of(f) == split]
''')


def part(path: Path, folder: Path, interview: Interview, wanted: Mapping[str, Any]) -> DataPart:
    """The data of a folder of images.

    Args:
        wanted: what the model says of its input: `channels`, `size`, `normalise`, where it does.
    Raises: MissingLibrary without Pillow; ConfigError for a folder without classes, a split that is missing or too small, a class
        that train lacks, a file that can't be decoded, or the same image in two splits.
    """
    require("PIL", pip="pillow")
    named = _named_splits(path)
    files, held_out = _split(path, named)
    found = sorted({name for classes in files.values() for name in classes})
    way = "Add images, or name other folders."
    check_sizes({split: sum(map(len, classes.values())) for split, classes in files.items()}, interview, way)
    check_classes({split: [name for name, of in classes.items() if of] for split, classes in files.items()}, way)
    _refuse_shared(path, files)
    classes = interview.settle(CLASSES, lambda words: _classes(words, found), default=",".join(found) if not any("," in f for f in found) else "sorted")
    train = [f for of in files["train"].values() for f in of]
    sides, modes = _looked_at(train)
    channels = int(wanted.get("channels") or (1 if all(mode in GREY for mode in modes) else 3))
    usual = next((s for s in SIDES if s >= 0.75 * statistics.median(sides)), SIDES[-1])
    size = interview.settle(SIZE, whole(8, 1024), default=str(wanted.get("size") or usual))
    how = interview.settle(NORMALISE, lambda words: words, default=str(wanted.get("normalise") or "train"))
    mean, std = _figures(train, channels, size, how)
    mode = "L" if channels == 1 else "RGB"
    recipe = {"decode": mode, "upright": True, "resize": [size, size], "interpolation": "bilinear", "divide_by": 255, "mean": mean, "std": std, "layout": "CHW"}
    constants = (
        f"DATA = {place(path, folder)}\nCLASSES = {literal(list(classes))}  # in the order of the model's outputs\n"
        f'SUFFIXES = {literal(SUFFIXES)}\nMODE, SIZE = "{mode}", {size}\n'
        f"MEAN, STD = torch.tensor({mean}).reshape(-1, 1, 1), torch.tensor({std}).reshape(-1, 1, 1)\n"
    )
    return DataPart(
        kind="class",
        shape="image",
        imports=IMPORTS + (() if named and not held_out else ("import hashlib",)),
        constants=constants,
        code=CODE.substitute(finder=_finder(path, named, held_out).strip("\n")),
        splits={split: _expression(split, named, held_out) for split in ORDER},
        count={split: sum(map(len, of.values())) for split, of in files.items()},
        more=(
            ("views", f"Views(crop={max(1, size // 16)})", "augmentation; add flip=True where a mirrored image means the same"),
            ("preprocess", literal(recipe, indent=4, taken=15), ""),
        ),
        classes=tuple(classes),
        figures={"channels": channels, "size": size},
        shown={"images": str(path), "classes": list(classes), "channels": channels, "size": size},
    )


def _named_splits(path: Path) -> dict[str, str]:
    """Split → sub-folder, where the sub-folders are splits; empty where they are classes."""
    below = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not below:
        raise ConfigError(f"{path} must hold a sub-folder for each class (or train/, validation/ and test/ with them), got none. Sort the images into folders.")
    named: dict[str, str] = {}
    for name in below:
        if name.lower() in NAMES:
            split = NAMES[name.lower()]
            if split in named:
                raise ConfigError(f"{path} has two folders for {split}: {named[split]} and {name}. Keep one.")
            named[split] = name
    if not {"train", "test"} & named.keys():
        return {}
    for split in ("train", "test"):
        if split not in named:
            raise ConfigError(
                f"{path} has a folder {next(iter(named.values()))}/ but none for {split}. Make {split}/, or put the classes straight into {path.name}/ for a split by hash."
            )
    return named


def _split(path: Path, named: Mapping[str, str]) -> tuple[Files, bool]:
    """Files by split and class; and whether validation is held out of train, as there is no folder of its own."""
    if not named:
        found = _below(path)
        return {split: {name: [f for f in of if hashed(f, SHARES) == split] for name, of in found.items()} for split in ORDER}, False
    if "validation" in named:
        return {split: _below(path / folder) for split, folder in named.items()}, False
    both, share = _below(path / named["train"]), (SHARES[1], 100)
    split = {part: {name: [f for f in of if hashed(f, share) == part] for name, of in both.items()} for part in ("train", "validation")}
    return {**split, "test": _below(path / named["test"])}, True


def hashed(file: Path, shares: Sequence[int]) -> str:
    """As `split_of` in the task that is written."""
    share = int(hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).hexdigest()[:8], 16) % 100
    return "train" if share < shares[0] else "validation" if share < shares[1] else "test"


def _below(path: Path) -> dict[str, list[Path]]:
    return {p.name: sorted(f for f in p.glob("*") if f.suffix.lower() in SUFFIXES) for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def _finder(path: Path, named: Mapping[str, str], held_out: bool) -> str:
    if named and not held_out:
        return BY_FOLDER.substitute()
    if not named:
        shares = f'"train" if share < {SHARES[0]} else "validation" if share < {SHARES[1]} else "test"'
        return BY_HASH.substitute(shares=shares, below="DATA", held_out="")
    by_hash = BY_HASH.substitute(
        shares=f'"train" if share < {SHARES[1]} else "validation"', below=f"DATA / {literal(named['train'])}", held_out=" that is held out of train's folder"
    )
    test = f'    if split == "test":\n        return sorted(f for name in CLASSES for f in (DATA / {literal(named["test"])} / name).glob("*") if f.suffix.lower() in SUFFIXES)\n'
    return by_hash.replace("    files = sorted", f"{test}    files = sorted")


def _expression(split: str, named: Mapping[str, str], held_out: bool) -> str:
    return f"Images(files_of({literal(split if held_out or not named else named[split])}))"


def _classes(words: list[str], found: list[str]) -> list[str]:
    words = found if words == ["sorted"] else words
    if sorted(words) != found:
        raise ConfigError(f"must be the sub-folders' names in the model's order ({', '.join(found)}), got {', '.join(words)}. Give each once.")
    return words


def _refuse_shared(path: Path, files: Files) -> None:
    seen: dict[str, tuple[str, Path]] = {}
    for split, classes in files.items():
        for file in (f for of in classes.values() for f in of):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            first, other = seen.setdefault(digest, (split, file))
            if first != split:
                raise ConfigError(
                    f"{other.relative_to(path)} ({first}) and {file.relative_to(path)} ({split}) are the same image. What is judged must not have been seen: delete one."
                )


def _looked_at(files: Sequence[Path]) -> tuple[list[int], set[str]]:
    from PIL import Image, UnidentifiedImageError

    sides, modes = [], set()
    for file in files[:: max(1, len(files) // LOOKED_AT)]:
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except (UnidentifiedImageError, OSError) as error:
            raise ConfigError(f"{file} can't be decoded: {error}. Delete it, or save it again.") from error
    return sides, modes


def _figures(files: Sequence[Path], channels: int, size: int, how: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of train only where they are measured."""
    if how == "none":
        return [0.0] * channels, [1.0] * channels
    if how == "imagenet":
        return ([0.449], [0.226]) if channels == 1 else IMAGENET
    from PIL import Image, ImageOps

    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for file in files[:: max(1, len(files) // LOOKED_AT)]:
        with Image.open(file) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB").resize((size, size)), np.float64).reshape(-1, channels) / 255
        total, squares, count = total + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return [number(float(v), 4) for v in mean], [number(float(v), 4) for v in std]
