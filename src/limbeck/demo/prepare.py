"""The demo's files: laid out where the user can read and change them, with a teacher trained on this machine."""

from __future__ import annotations

import importlib.util
import io
import time
from pathlib import Path
from typing import Any

from limbeck.core.errors import TaskError
from limbeck.core.files import sync_folder, write
from limbeck.core.require import require

SOURCE = Path(__file__).parent / "digits"


def prepare(folder: Path, *, quick: bool, log: Any) -> Path:
    """The run file in `folder`; its task, and its teacher trained if it isn't there yet.

    Raises: MissingLibrary without scikit-learn; TaskError if the folder can't be written.
    """
    require("sklearn", pip="scikit-learn")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in SOURCE.glob("*.*"):
            if source.suffix in (".py", ".toml") and not (folder / source.name).exists():
                write(folder / source.name, source.read_bytes())
        if not (folder / "digits.npz").exists():
            write(folder / "digits.npz", _digits())
    except OSError as error:
        raise TaskError(f"the demo's folder {folder} can't be written: {error.strerror}. Choose another with --folder.") from error
    weights = folder / "teacher.safetensors"
    if not weights.exists():
        start = time.monotonic()
        log.event("note", text="training the demo's teacher: what a user brings is made here first")
        half = folder / ".teacher.safetensors.tmp"  # a killed training leaves no half of a teacher
        _module(folder / "task.py").train_teacher(half)
        half.replace(weights)
        sync_folder(folder)
        log.event("note", text=f"teacher trained in {time.monotonic() - start:.0f} s")
    return folder / ("quick.toml" if quick else "limbeck.toml")


def _digits() -> bytes:
    """scikit-learn's digits as an npz of `pixels` [1797, 64], 0 to 16, and `targets` [1797]: a run then needn't import scikit-learn."""
    import numpy as np
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    buffer = io.BytesIO()
    np.savez(buffer, pixels=pixels.astype(np.uint8), targets=targets.astype(np.int64))
    return buffer.getvalue()


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("limbeck_demo_task", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} can't be imported. Delete the folder and start the demo again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
