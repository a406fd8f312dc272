"""Thumbnails: pixels to a PNG (RFC 2083), written by hand so that no picture library is needed."""

from __future__ import annotations

import base64
import struct
import zlib

from limbeck.core.errors import ConfigError
from limbeck.report.story import Picture

GREY, RGB = 0, 2  # PNG's colour types
BLOCK = 0xFFFF  # bytes of a stored block at most


def png(picture: Picture) -> bytes:
    """A PNG of 8 bits a channel. Raises ConfigError if the pixels aren't as many as the sides say."""
    row = picture.width * picture.channels
    if picture.channels not in (1, 3) or row < 1 or picture.height < 1 or len(picture.pixels) != row * picture.height:
        raise ConfigError(
            f"a picture must hold width × height × channels (1 or 3) bytes, got {len(picture.pixels)} for {picture.width} × {picture.height} × {picture.channels}. Give whole rows."
        )
    colour = GREY if picture.channels == 1 else RGB
    lines = b"".join(b"\0" + picture.pixels[i : i + row] for i in range(0, len(picture.pixels), row))  # 0: no filter
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(lines)) + _chunk(b"IEND", b"")


def data_uri(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


def _stored(data: bytes) -> bytes:
    """A zlib stream that doesn't compress (RFC 1950, 1951 §3.2.4): the same bytes from every version of zlib."""
    starts = range(0, len(data), BLOCK)
    blocks = b"".join(struct.pack("<BHH", start + BLOCK >= len(data), len(part := data[start : start + BLOCK]), len(part) ^ 0xFFFF) + part for start in starts)
    return b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
