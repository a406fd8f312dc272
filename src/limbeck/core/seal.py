"""JSON that carries the SHA-256 of its own content and has one spelling, so that one changed byte is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


def sealed(data: Mapping[str, Any], *, allow_nan: bool = False) -> bytes:
    """A record as it is written: its content in the order given, and last the SHA-256 of that content's text.

    Raises: ValueError for NaN or Inf where they aren't allowed.
    """
    body = {k: v for k, v in json.loads(json.dumps(data, allow_nan=allow_nan)).items() if k != SEAL}
    return _text({**body, SEAL: content_hash(body)}).encode()


def holds(data: Mapping[str, Any], raw: bytes) -> bool:
    """Whether `raw`, read as `data`, is the one spelling of it and carries its own hash."""
    return data.get(SEAL) == content_hash({k: v for k, v in data.items() if k != SEAL}) and _bytes(data) == raw


def content_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 of the one spelling of this content, in hex."""
    return hashlib.sha256(_bytes(body)).hexdigest()


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False)


def _bytes(data: Mapping[str, Any]) -> bytes:
    return _text(data).encode(errors="replace")
