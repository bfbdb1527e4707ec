"""An archive: verified before it is read, and read again as it was packed."""

import importlib.util
import io
import json
import marshal
import zipfile

import pytest

from app.errors import ArtifactError
from app.package.archive import META_FILE, Archive, make_pyc
from app.records import Artifact
from tests.support.plugins import artifact_of, sha256


def test_a_byte_that_is_flipped_anywhere_is_noticed_before_anything_is_read(monkeypatch):
    artifact = artifact_of({"main.py": "x = 1\n", "data.txt": "data"})

    def never(*_args):
        raise AssertionError("unmarshalled")

    monkeypatch.setattr(marshal, "loads", never)
    monkeypatch.setattr(zipfile, "ZipFile", never)
    size = len(artifact.archive)
    for position in {*range(0, size, 7), size - 1}:
        raw = bytearray(artifact.archive)
        raw[position] ^= 1 << (position % 8)
        damaged = Artifact(artifact.plugin, artifact.digest, artifact.sha256, bytes(raw))
        with pytest.raises(ArtifactError, match="changed or damaged"):
            Archive.verified(damaged)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_an_archive_that_is_cut_off_is_noticed(cut):
    artifact = artifact_of({"main.py": "x = 1\n"})
    damaged = Artifact(artifact.plugin, artifact.digest, artifact.sha256, artifact.archive[:cut])
    with pytest.raises(ArtifactError):
        Archive.verified(damaged)


def packed(meta, **files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if meta is not None:
            archive.writestr(META_FILE, meta)
        for name, content in files.items():
            archive.writestr(name, content)
    raw = buffer.getvalue()
    return Artifact("sample", "0" * 32, sha256(raw), raw)


GOOD = {"entry": "main:new_plugin", "config": {}, "magic": importlib.util.MAGIC_NUMBER.hex()}


@pytest.mark.parametrize(
    "meta",
    [
        None,
        "",
        "{",
        "{}",
        "[]",
        "5",
        "null",
        '"x"',
        b"\xff",
        json.dumps(GOOD | {"magic": "zz"}),
        json.dumps(GOOD | {"magic": 5}),
        json.dumps({k: v for k, v in GOOD.items() if k != "entry"}),
        json.dumps({k: v for k, v in GOOD.items() if k != "config"}),
    ],
)
def test_an_archive_of_another_kind_is_an_error_of_the_artifact_though_its_hash_fits(meta):
    # Who writes plugin_versions by hand must not stop the other plugins.
    with pytest.raises(ArtifactError):
        Archive.verified(packed(meta))


@pytest.mark.parametrize("raw", [b"", b"x", b"PK\x05\x06" + b"\0" * 18, b"PK\x03\x04" * 10])
def test_bytes_that_are_no_archive_are_an_error_of_the_artifact(raw):
    with pytest.raises(ArtifactError):
        Archive.verified(Artifact("sample", "0" * 32, sha256(raw), raw))


def test_an_encrypted_archive_is_an_error_of_the_artifact():
    raw = bytearray(packed(json.dumps(GOOD)).archive)
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArtifactError):
        Archive.verified(Artifact("sample", "0" * 32, sha256(bytes(raw)), bytes(raw)))


def repacked(good, change):
    """Return an artifact again whose files `change(name, raw)` has changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good.archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    raw = buffer.getvalue()
    return Artifact("sample", good.digest, sha256(raw), raw)


def value_of(artifact, path, name):
    """Run a module of an archive and return one of its values."""
    namespace = {}
    exec(Archive.verified(artifact).code(path), namespace)
    return namespace[name]


def test_bytecode_of_another_python_is_compiled_from_the_source():
    def change(name, raw):
        if name == META_FILE:
            return json.dumps(json.loads(raw) | {"magic": "00000000"}).encode()
        return b"\0" * 40 if name.endswith(".pyc") else raw

    good = artifact_of({"main.py": "x = 1\n", "pkg/__init__.py": "y = 2\n"})
    assert value_of(repacked(good, change), "main.py", "x") == 1
    assert value_of(repacked(good, change), "pkg/__init__.py", "y") == 2


def test_bytecode_of_this_python_is_not_compiled_again():
    other = make_pyc(b"", compile("x = 2", "main.py", "exec"))
    good = artifact_of({"main.py": "x = 1\n"})
    made = repacked(good, lambda name, raw: other if name == "main.pyc" else raw)
    assert value_of(made, "main.py", "x") == 2  # the source says 1
