"""A zip with one spelling: entries sorted, stored as they are, without times, so that equal files give equal bytes.

Written and read here byte for byte, not by a zip library: those differ between versions, and skip bytes that they don't need.
What is read must be what would be written, so every changed byte is found, also in headers, and belongs to a file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from limbeck.core.errors import ConfigError

LOCAL, CENTRAL, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
VERSION, UTF8, STORED, NO_TIME, FIRST_DAY = 20, 0x800, 0, 0, 0x21  # 1 January 1980, the first day that a zip can say
UNIX, PLAIN_FILE = 3 << 8, 0o100644 << 16
MOST_BYTES, MOST_FILES = (1 << 32) - 1, (1 << 16) - 1


def packed(files: Mapping[str, bytes]) -> bytes:
    """The zip of these files.

    Raises: ConfigError for a name that would leave the folder in which it is unpacked, or over 4 GiB or 65,535 files.
    """
    for name in files:
        if reason := odd_name(name):
            raise ConfigError(f"the name {name!r} in a package {reason}. Give it another.")
    total = sum(len(d) + 2 * len(n.encode()) + LOCAL.size + CENTRAL.size for n, d in files.items()) + END.size
    if total > MOST_BYTES or len(files) > MOST_FILES:
        raise ConfigError(f"a package must be below {MOST_BYTES:,} bytes in {MOST_FILES:,} files, got {total:,} in {len(files):,}. Leave the baseline out with --no-baseline.")
    parts, places, offset = [], [], 0
    for name in sorted(files):
        data = files[name]
        entry = _Entry(name.encode(), zlib.crc32(data), len(data), offset)
        places.append(entry)
        parts += [entry.local(), data]
        offset += len(parts[-2]) + len(data)
    return b"".join([*parts, _directory(places, offset)])


@dataclass(frozen=True)
class _Entry:
    name: bytes
    crc: int
    size: int
    offset: int

    def local(self) -> bytes:
        return LOCAL.pack(b"PK\3\4", VERSION, UTF8, STORED, NO_TIME, FIRST_DAY, self.crc, self.size, self.size, len(self.name), 0) + self.name

    def central(self) -> bytes:
        fixed = (b"PK\1\2", UNIX | VERSION, VERSION, UTF8, STORED, NO_TIME, FIRST_DAY, self.crc, self.size, self.size, len(self.name), 0, 0, 0, 0, PLAIN_FILE, self.offset)
        return CENTRAL.pack(*fixed) + self.name


def _directory(entries: Iterable[_Entry], offset: int) -> bytes:
    central = [e.central() for e in entries]
    size = sum(len(c) for c in central)
    return b"".join([*central, END.pack(b"PK\5\6", 0, 0, len(central), len(central), size, offset, 0)])


@dataclass
class Unpacked:
    """The files of a zip in memory, and by name what isn't as it would have been written. Nothing is on disk.

    whole: whether it could be read to its end.
    """

    files: dict[str, memoryview] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    whole: bool = False


def unpacked(raw: bytes, *, where: str) -> Unpacked:
    """Read a zip strictly; the first byte that isn't as `packed` writes it ends the reading, and its file is named.

    Args:
        where: What the zip is called, for what belongs to none of its files.
    """
    seen, entries, offset = Unpacked(), [], 0
    while raw[offset : offset + 4] == b"PK\3\4" and len(raw) >= offset + LOCAL.size:
        *_, crc, size, _, length, _ = LOCAL.unpack_from(raw, offset)
        name_bytes = raw[offset + LOCAL.size : offset + LOCAL.size + length]
        entry = _Entry(name_bytes, crc, size, offset)
        name = name_bytes.decode(errors="backslashreplace")
        start = offset + LOCAL.size + length
        reason = odd_name(name) or _twice(name, seen.files)
        if reason is None and (raw[offset:start] != entry.local() or start + size > len(raw)):
            reason = "has a header that `limbeck package` doesn't write: it was changed, or another program packed it (then unpack it, and verify the folder)"
        if reason:
            seen.problems[name or where] = reason
            return seen
        seen.files[name] = memoryview(raw)[start : start + size]
        if zlib.crc32(seen.files[name]) != crc:
            seen.problems[name] = "its bytes don't have their checksum"
        entries.append(entry)
        offset = start + size
    if not entries:
        seen.problems[where] = "is no zip that `limbeck package` wrote"
    elif raw[offset : offset + 4] != b"PK\1\2":
        seen.problems = seen.problems or {where: f"has neither a file nor its list of files at byte {offset:,}: it was changed or cut off"}
    elif not seen.problems and (odd := _odd_directory(raw, entries, offset)) is not None:  # a file that was changed is to blame alone
        seen.problems[odd or where] = "isn't as the zip's list of files has it: one of the two was changed"
    else:
        seen.whole = True
    return seen


def _odd_directory(raw: bytes, entries: list[_Entry], offset: int) -> str | None:
    """The name of the first file whose record in the zip's own list differs; empty if it is the list's end or its order, None if nothing does."""
    at = offset
    for entry in entries:
        record = entry.central()
        if raw[at : at + len(record)] != record:
            return entry.name.decode(errors="backslashreplace")
        at += len(record)
    ordered = entries == sorted(entries, key=lambda e: e.name)
    return None if ordered and raw[offset:] == _directory(entries, offset) else ""


def odd_name(name: str) -> str | None:
    """Why a name is not a plain path below a folder, or None. Names are refused as they stand, never mended."""
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or "\\" in name or ":" in parts[0] or any(p in ("", ".", "..") for p in parts):
        return "would leave the folder, or is no plain path"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "holds a character that can't be shown"
    return None


def _twice(name: str, names: Iterable[str]) -> str | None:
    return "stands there twice (names that differ in case alone count as one)" if name.casefold() in {n.casefold() for n in names} else None
