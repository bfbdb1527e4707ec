"""A zip is read as `zipfile` reads it, whatever kind it is of."""

import io
import zipfile
import zlib
from collections.abc import Callable

import pytest

from app.package.zip_directory import AnyZip, PlainZip, open_zip
from tests.support.plugins import artifact_of

FILES = {"main.py": b"x = 1\n", "größe/ä.txt": "ü".encode(), "empty": b"", "a/b/c.bin": bytes(999)}


def zipped(how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as packed:
        for name, raw in FILES.items():
            packed.writestr(name, raw)
    return buffer.getvalue()


def with_comment() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.comment = b"of a person"
        packed.writestr("main.py", b"x")
    return buffer.getvalue()


def with_rights() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        info = zipfile.ZipInfo("run.sh")
        info.external_attr = 0o755 << 16
        packed.writestr(info, b"#!/bin/sh\n")
        info = zipfile.ZipInfo("more")
        info.extra = b"\x99\x99\x02\x00ab"
        packed.writestr(info, b"with an extra field")
    return buffer.getvalue()


def with_one_name_twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("main.py", b"old")
        packed.writestr("main.py", b"new")
    return buffer.getvalue()


MADE: list[tuple[Callable[[], bytes], type]] = [
    (zipped, PlainZip),
    (lambda: artifact_of({"main.py": "x = 1\n", "ä.txt": "y"}).archive, PlainZip),
    (lambda: zipped(zipfile.ZIP_DEFLATED), AnyZip),
    (lambda: b"before it" + zipped(), AnyZip),
    (with_comment, AnyZip),
    (with_rights, AnyZip),
    (with_one_name_twice, AnyZip),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("make", "kind"), MADE)
def test_what_is_in_a_zip_is_what_zipfile_finds(make: Callable[[], bytes], kind: type) -> None:
    raw = make()
    found = open_zip(raw)
    assert type(found) is kind
    with zipfile.ZipFile(io.BytesIO(raw)) as expected:
        assert list(found.entries) == list(dict.fromkeys(expected.namelist()))
        for name in expected.namelist():
            info = expected.getinfo(name)
            assert found.read(name) == expected.read(name)
            assert found.entries[name][1:] == (info.file_size, info.external_attr)
    with pytest.raises(KeyError):
        found.read("none")


def test_a_zip_that_is_damaged_anywhere_gives_what_it_held_or_an_error() -> None:
    """Its hash is looked at before; who has both in hand must not end the load of others."""
    raw = zipped()
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 0xFF
        try:
            found = open_zip(bytes(damaged))
            for name in found.entries:
                found.read(name)
        except (zipfile.BadZipFile, LookupError, ValueError, EOFError, RuntimeError, zlib.error):
            continue
