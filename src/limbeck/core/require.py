"""Libraries that limbeck loads only where they are used."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

from limbeck.core.errors import MissingLibrary


def require(module: str, *, pip: str | None = None) -> ModuleType:
    """The module, imported now.

    Args:
        module: Its import name; may have dots.
        pip: What to install, where that isn't the module's own first name.
    Raises: MissingLibrary with the pip line if it isn't installed, with its own error if it is there and can't be imported.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise _broken(top, error) from error
        raise MissingLibrary(f"'{top}' must be installed for this, and isn't. Install it: pip install {pip or top}") from error
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # such as a library built for another torch
        raise _broken(top, error) from error


def _broken(top: str, error: Exception) -> MissingLibrary:
    return MissingLibrary(f"'{top}' is installed and can't be imported ({type(error).__name__}: {error}). `limbeck doctor` knows combinations that don't work together.")


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None; imports nothing of it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
