"""What must not be told: values of variables and options whose name says that they are secret, and credentials inside addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
WORDS = frozenset({"token", "secret", "secrets", "password", "passwd", "pwd", "passphrase", "credential", "credentials", "apikey"})
FOLDERS = frozenset({"PWD", "OLDPWD"})  # a shell's working folders, not passwords
SHORTEST = 5  # characters of a value that is looked for in text: a shorter one would be found in any
PARTS = re.compile(r"[a-z0-9]+|[A-Z]+(?![a-z])|[A-Z][a-z0-9]*")
NAMED = re.compile(r"""(?P<name>[A-Za-z][\w.-]*)(?P<is>["']?\s*[=:]\s*)(?P<value>"[^"]*"|'[^']*'|[^\s"',;&)\]}]+)""")
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]*:[^\s@'\"]*@")
BEARER = re.compile(r"(?i)\b(?P<kind>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")


def is_secret(name: str) -> bool:
    """Whether a name says token, secret, password or key. A bare `key` is a name of limbeck's own for what finds a record, and is none; nor is KeyError."""
    parts = [part.lower() for part in PARTS.findall(name)]
    if parts[-1:] == ["error"]:
        return False
    return bool(WORDS & set(parts)) or ("key" in parts and len(parts) > 1 and "public" not in parts)


def masked_text(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The same text, with *** for values of secret variables, for what follows a secret name, and for credentials in addresses."""
    environment = os.environ if environment is None else environment
    values = sorted((v for k, v in environment.items() if is_secret(k) and k not in FOLDERS and len(v) >= SHORTEST), key=len, reverse=True)
    for value in values:
        text = text.replace(value, HIDDEN)
    text = ADDRESS.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = BEARER.sub(rf"\g<kind> {HIDDEN}", text)
    return NAMED.sub(lambda m: f"{m['name']}{m['is']}{HIDDEN}" if is_secret(m["name"]) else m[0], text)


def masked(data: Any, environment: Mapping[str, str] | None = None) -> Any:
    """The same plain data, masked: texts as `masked_text` does it, and all that stands under a secret name."""
    if isinstance(data, str):
        hidden = masked_text(data, environment)
        return data if hidden == data else hidden
    if isinstance(data, Mapping):
        return {k: HIDDEN if isinstance(k, str) and is_secret(k) and v is not None and not isinstance(v, bool) else masked(v, environment) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(masked(v, environment) for v in data)
    return data
