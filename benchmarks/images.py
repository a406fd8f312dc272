"""The image sets and trained teachers that benchmarks read, as tensors. Needs LIMBECK_DATA: a folder with real data."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.mechanics.live import LiveTeacher, Pass
from limbeck.mechanics.matching import Layer
from limbeck.mechanics.taps import PREFIX

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2] / "shared" / "data"))
Images = tuple[Tensor, Tensor]  # normalised pixels [n, channels, height, width], labels [n]
CIFAR = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)  # mean and spread that its teachers were trained with


def fashion_mnist(split: str) -> Images:
    """60,000 (split "train") or 10,000 ("t10k") grey images of 28 × 28."""
    folder = DATA / "fashion_mnist"
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    count, height, width = struct.unpack(">3I", pixels[4:16])
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(count, 1, height, width).astype(np.float32) / 255
    return torch.from_numpy((x - 0.2860) / 0.3530), torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def cifar10_jpeg(split: str, ids: np.ndarray | None = None) -> Images:
    """CIFAR-10 as JPEG files (lossy), 50,000 (split "train") or 10,000 ("test") colour images of 32 × 32; all, or these."""
    from PIL import Image

    with np.load(DATA / "cifar10" / "cifar10_jpeg.npz") as stored:
        offsets, jpeg, labels = stored[f"{split}_offsets"], stored[f"{split}_jpeg"].tobytes(), stored[f"{split}_labels"]
    chosen = np.arange(len(labels)) if ids is None else ids
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]]))) for i in chosen])
    x = (pixels.astype(np.float32) / 255 - CIFAR[0]) / CIFAR[1]
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))), torch.from_numpy(labels[chosen].astype(np.int64))


def given(name: str) -> nn.Module:
    """A trained teacher that lies beside the data: "fashion_resnet18" or "cifar_resnet56"."""
    spec = importlib.util.spec_from_file_location("architectures", DATA / "teachers" / "architectures.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"there is no teacher at {DATA}; set LIMBECK_DATA")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.FACTORIES[name]()
    model.load_state_dict(load_file(DATA / "teachers" / f"{name}.safetensors"))
    return model.eval()


def right(model: nn.Module, images: Images, batch: int = 250) -> np.ndarray:
    """Whether each image is answered rightly: [n], bool."""
    model.eval()
    with torch.no_grad():
        return np.concatenate([(model(x).argmax(1) == y).numpy() for x, y in zip(images[0].split(batch), images[1].split(batch), strict=True)])


@dataclass(frozen=True)
class Kept:
    """A teacher's answers to every training sample under each view, asked once for all terms and kept in half precision.

    `limbeck.mechanics.signals.CachedTeacher` keeps features for each set of layers that an objective reads; here some thirty objectives read
    from one pass over all layers, one file a layer. files: by name, [views, samples, …].
    """

    live: LiveTeacher
    files: Mapping[str, np.ndarray]
    read: tuple[str, ...] = ()

    @staticmethod
    def of(live: LiveTeacher, folder: Path, batch: int = 250) -> Kept:
        """Asks the teacher where the folder hasn't its answers yet."""
        done = folder / "whole"
        if not done.exists():
            _fill(live, folder, batch)
            done.touch()
        return Kept(live, {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))})

    def tapped(self, paths: tuple[str, ...]) -> Kept:
        if missing := [path for path in paths if PREFIX + path not in self.files]:
            raise SystemExit(f"the teacher's layers {missing} aren't kept; there are {sorted(self.files)}")
        return replace(self, read=(*self.read, *(PREFIX + path for path in paths)))

    def layers(self) -> Sequence[Layer]:
        return self.live.layers()

    def teacher(self, ids: np.ndarray, view: int, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
        outputs = [name for name in self.files if not name.startswith(PREFIX)]
        return {name: torch.from_numpy(self.files[name][view, ids].astype(np.float32)) for name in (*outputs, *self.read)}


def _fill(live: LiveTeacher, folder: Path, batch: int) -> None:
    asking, files = Pass(live, batch_size=batch), dict[str, np.ndarray]()
    versions = live.task.views.versions if live.task.views else 1
    folder.mkdir(parents=True, exist_ok=True)
    for view in range(versions):
        at = 0
        for batches in asking.answers(view, [np.arange(asking.count)], lambda _: True):
            for answers in batches:
                for name, value in answers.items():
                    if name not in files:
                        files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (versions, asking.count, *value.shape[1:]))
                    files[name][view, at : at + len(value)] = value.numpy()
                at += len(value)
