"""A zip with one spelling: what is read must be what would be written."""

import io
import random
import zipfile

import pytest

from limbeck.core.errors import ConfigError
from limbeck.package.container import odd_name, packed, unpacked

FILES = {"b.txt": b"second", "a/é.bin": bytes(range(256)), "a/empty": b""}


def test_equal_files_give_equal_bytes_that_any_zip_reader_opens():
    raw = packed(FILES)
    assert raw == packed(dict(reversed(FILES.items())))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None and {n: archive.read(n) for n in archive.namelist()} == FILES
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    seen = unpacked(raw, where="x.zip")
    assert seen.whole and not seen.problems and {n: bytes(d) for n, d in seen.files.items()} == FILES


def test_every_flipped_bit_is_found():
    raw = packed({"one": b"ab", "two": b"c"})
    for place in range(len(raw)):
        for bit in range(8):
            seen = unpacked(raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :], where="x.zip")
            assert seen.problems, (place, bit)


def test_bytes_added_or_cut_off_are_found():
    raw = packed(FILES)
    generator = random.Random(0)
    for _ in range(50):
        place = generator.randrange(len(raw))
        assert unpacked(raw[:place], where="x.zip").problems
        assert unpacked(raw[:place] + b"\0" + raw[place:], where="x.zip").problems
    assert unpacked(raw + b"\0", where="x.zip").problems and unpacked(b"\0" + raw, where="x.zip").problems and unpacked(b"", where="x.zip").problems


@pytest.mark.parametrize("name", ["../up", "/root", "a/../../up", "a//b", "./a", "a\\b", "C:/x", "a/", "", "a\nb", "a\x7f"])
def test_a_name_that_would_leave_the_folder_is_refused_both_ways(name):
    assert odd_name(name)
    with pytest.raises(ConfigError, match="Give it another"):
        packed({name: b"x"})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("fine", b"y")
        info = zipfile.ZipInfo("q" * len(name))
        archive.writestr(info, b"x")
    raw = buffer.getvalue().replace(b"q" * len(name), name.encode()) if name else packed({"a": b"x"}).replace(b"\1\0\0\0a", b"\0\0\0\0a", 1)
    seen = unpacked(raw, where="x.zip")
    assert seen.problems and not seen.whole and name not in seen.files


def test_names_that_differ_in_case_alone_or_changed_places_are_refused():
    assert "twice" in str(unpacked(packed({"A": b"1", "a": b"2"}), where="x").problems)
    raw = packed({"a": b"1", "b": b"1"})
    swapped = raw.replace(b"a1", b"#1").replace(b"b1", b"a1").replace(b"#1", b"b1")  # the local headers' names
    assert unpacked(swapped, where="x").problems


def test_another_programs_zip_is_told_from_damage():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"{}" * 100)
    assert "another program packed it" in unpacked(buffer.getvalue(), where="x.zip").problems["manifest.json"]
