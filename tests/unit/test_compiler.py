"""A source becomes an archive of source and bytecode, and is stored whole or not at all."""

import codecs
import errno
import importlib.util
import io
import marshal
import os
import stat
import sys
import types
import zipfile
from pathlib import Path

import pytest

from app.errors import ArtifactError, CompileError
from app.package.archive import Archive
from app.package.store import read_archive, store_artifact
from app.publishing.compiler import compile_plugin
from app.records import Artifact, artifact_digest
from tests.support.plugins import artifact_of, sha256, source_of


def refusal(files) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compile_plugin(source_of(files))
    assert caught.value.plugin == "sample"
    assert caught.value.phase == "compile"
    return caught.value


def opened(artifact: Artifact) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(artifact.archive))


# --- compiling -----------------------------------------------------------------------------


def test_a_syntax_error_is_named_with_its_file_and_line():
    error = refusal({"main.py": "x = 1\ndef f(:\n", "good.py": "y = 2\n"})
    assert (error.file, error.line) == ("main.py", 2)
    assert "good.py" not in error.message


@pytest.mark.parametrize(
    ("raw", "said", "line"),
    [
        ("x = 'é'\n".encode("utf-16"), "it is UTF-16 text, expected UTF-8: save it", 1),
        (codecs.BOM_UTF16_BE + "x = 1\n".encode("utf-16-be"), "it is UTF-16 text", 1),
        ("x = 1\n".encode("utf-32"), "it is UTF-32 text", 1),
        ("x = 1\n".encode("utf-16-le"), "it holds a NUL byte, expected UTF-8 text", 1),
        (b"x = 1\ny = 2\n\0\0\0\0", "it holds a NUL byte", 3),
    ],
)
def test_a_file_in_another_encoding_is_named_with_what_to_do(raw, said, line):
    error = refusal({"main.py": "x = 1\n", "wide.py": raw})
    assert said in error.message
    assert (error.file, error.line) == ("wide.py", line)


def test_a_mark_of_utf_8_is_no_fault():
    compile_plugin(source_of({"main.py": codecs.BOM_UTF8 + "x = 'é'\n".encode()}))


def test_all_syntax_errors_are_named_at_once():
    error = refusal(
        {"main.py": "x = 1\ny = (\n", "pkg/a.py": "\n\n1 +\n", "pkg/b.py": "return\n", "c.py": ""}
    )
    for place in ("main.py:2", "pkg/a.py:3", "pkg/b.py:1"):
        assert place in error.message
    assert "c.py" not in error.message
    assert error.file == "main.py"


@pytest.mark.parametrize(
    "path",
    ["main-DESKTOP-7A.py", "main~1.py", "main.conflict.py", "old-copy/main.py", "1st.py", "a b.py"],
)
def test_what_no_import_can_name_need_not_compile(path, load_plugin):
    files = {"main.py": "x = 1\n", path: "x = 1\ndef f(:\n"}
    passed_over = []
    artifact = compile_plugin(source_of(files), passes_over=passed_over.append)
    assert [fault.partition(": ")[0] for fault in passed_over] == [f"{path}:2"]
    assert f"{path}c" not in opened(artifact).namelist()
    with pytest.raises(SyntaxError):  # who imports it by `importlib` all the same
        Archive.verified(artifact).code(path)


def test_what_no_import_can_name_is_compiled_if_it_can_be():
    artifact = compile_plugin(source_of({"main.py": "", "my-module.py": "x = 1\n"}))
    assert "my-module.pyc" in opened(artifact).namelist()
    error = refusal({"main.py": "", "old-1.py": "def f(:", "klass.py": "def f(:"})
    assert error.file == "klass.py"
    assert "old-1" not in error.message


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", "é"),
        (b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '\x80'\n", "€"),
        (b"\xef\xbb\xbfx = '\xc3\xa9'\n", "é"),
        ("x = '☃'\n".encode(), "☃"),
        (b"x = 'a'\r\ny = 1\r\n", "a"),
        (b"x = 'a'", "a"),
        (b"x = 'a'\n\x0c\ny = 1\n", "a"),
    ],
)
def test_an_encoding_that_is_declared_is_respected(raw, text, load_plugin):
    archive = Archive.verified(compile_plugin(source_of({"main.py": raw})))
    namespace = {}
    exec(archive.code("main.py"), namespace)
    assert namespace["x"] == text


@pytest.mark.parametrize(
    "raw",
    [
        b"x = '\xe9'\n",
        b"# coding: no-such-code\nx = 1\n",
        b"# coding: ascii\nx = '\xe9'\n",
        b"\xef\xbb\xbf# coding: latin-1\nx = 1\n",
        "x = 1\n".encode("utf-16"),
        b"x = 1\0\n",
        b"\0",
        b"'" * 3 + b"\0" + b"'" * 3,
    ],
)
def test_what_is_no_text_is_refused_with_its_file(raw):
    error = refusal({"main.py": "", "bad.py": raw})
    assert error.file == "bad.py"
    assert error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"(" * 500,
        b"(" * 500 + b")" * 500,
        b"x = " + b"-" * 50_000 + b"1",
        b"[" * 150_000,
        b"x = " + b"+".join([b"1"] * 30_000),
        b"x = 1" + b"()" * 20_000,
        b"x = a" + b".b" * 50_000,
    ],
)
def test_deep_nesting_is_refused_and_does_not_end_the_process(raw):
    try:
        compile_plugin(source_of({"main.py": raw + b"\n"}))
    except CompileError as error:
        assert error.file == "main.py"  # noqa: PT017


@pytest.mark.parametrize(
    "text",
    [
        "nonlocal x\n",
        "break\n",
        "def f(a, a): pass\n",
        "await x\n",
        "yield 1\n",
        "x = 5\nglobal x\n",
        "from __future__ import braces\n",
        "from . import *\ndef f():\n from . import *\n",
        "f() = 1\n",
        "\tif x:\n  y\n",
        "class A:\n  return\n",
    ],
)
def test_what_only_the_compiler_sees_is_refused_too(text):
    assert refusal({"main.py": text}).line is not None


def test_an_archive_that_is_too_large_is_refused():
    source = source_of({"main.py": "x = 1\n", "data.bin": b"0" * 2000})
    size = len(compile_plugin(source).archive)
    assert len(compile_plugin(source, max_bytes=size).archive) == size
    with pytest.raises(CompileError, match=f"have {size:,} bytes, expected {size - 1:,} at most"):
        compile_plugin(source, max_bytes=size - 1)


def test_only_files_that_end_in_py_are_compiled():
    artifact = artifact_of({"main.py": "", "template.py.txt": "def (", "x.PY": "def (", "py": "("})
    names = opened(artifact).namelist()
    assert "template.py.txtc" not in names
    assert "main.pyc" in names


def test_the_compilers_own_future_imports_do_not_leak_into_a_plugin():
    code = Archive.verified(artifact_of({"main.py": "def f(x: 1 + 1): pass\n"})).code("main.py")
    namespace = {}
    exec(code, namespace)
    assert namespace["f"].__annotations__ == {"x": 2}


# --- the archive ---------------------------------------------------------------------------


def test_the_archive_is_a_zip_that_holds_source_and_bytecode():
    files = {
        "main.py": "x = 1\n",
        "pkg/__init__.py": "",
        "pkg/data.bin": bytes(range(256)),
        "ü.txt": "ü",
    }
    artifact = artifact_of(files)  # type: ignore[arg-type]
    with opened(artifact) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        assert len(names) == len(set(names))
        for path, content in files.items():
            expected = content if isinstance(content, bytes) else content.encode()  # type: ignore[attr-defined]
            assert packed.read(path) == expected
        bytecode = packed.read("main.pyc")
    assert bytecode[:4] == importlib.util.MAGIC_NUMBER
    assert isinstance(marshal.loads(bytecode[16:]), types.CodeType)
    assert set(names) >= {"main.pyc", "pkg/__init__.pyc"}
    assert "pkg/data.binc" not in names


def test_the_pyc_is_one_that_python_itself_would_load(tmp_path):
    path = tmp_path / "main.pyc"
    path.write_bytes(opened(artifact_of({"main.py": "x = 41 + 1\n"})).read("main.pyc"))
    spec = importlib.util.spec_from_file_location("standalone", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)
    assert module.x == 42


def test_the_artifact_carries_its_hash_and_its_sources_digest():
    source = source_of({"main.py": "x = 1\n"})
    artifact = compile_plugin(source)
    assert artifact.digest == source.digest
    assert artifact.sha256 == sha256(artifact.archive)
    assert artifact.is_intact()
    assert artifact.file_name == f"sample-{source.digest}.pyz"
    assert artifact_digest("sample", f"/any/folder/{artifact.file_name}") == source.digest


@pytest.mark.parametrize(
    "path",
    [
        "/x/other-{d}.pyz",
        "/x/sample-{d}.so",
        "/x/sample-{d}",
        "sample.so",
        "",
        "/x/sample-{d}.pyz/",
        "/x/sample-" + "g" * 32 + ".pyz",
        "/x/sample-{d}.pyz\n",
        "/x/sample-" + "A" * 32 + ".pyz",
    ],
)
def test_a_binary_path_that_names_no_archive_has_no_digest(path):
    assert artifact_digest("sample", path.replace("{d}", "0" * 32)) is None


def test_the_config_and_the_entry_travel_in_the_archive():
    artifact = artifact_of({"x.py": ""}, entry="x:make", config={"a": [1, None, "ü", 1.5]})
    archive = Archive.verified(artifact)
    assert archive.entry == "x:make"
    assert archive.config == {"a": [1, None, "ü", 1.5]}


def test_times_and_machines_do_not_show_in_the_archives_entries():
    for info in opened(artifact_of({"main.py": ""})).infolist():
        assert info.date_time == (1980, 1, 1, 0, 0, 0)


# --- storing -------------------------------------------------------------------------------


@pytest.fixture
def artifact() -> Artifact:
    return artifact_of({"main.py": "x = 1\n"})


def test_an_archive_is_stored_readable_under_its_name_in_a_new_folder(artifact, tmp_path):
    path = store_artifact(artifact, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / artifact.file_name
    assert path.read_bytes() == artifact.archive
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == [artifact.file_name]
    assert read_archive(path.parent, artifact.file_name) == artifact.archive


def test_an_identical_archive_is_not_written_again(artifact, tmp_path):
    path = store_artifact(artifact, tmp_path)
    os.utime(path, ns=(1, 1))
    before = path.stat()
    assert store_artifact(artifact, tmp_path) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_archive_is_replaced(artifact, tmp_path):
    path = store_artifact(artifact, tmp_path)
    path.write_bytes(artifact.archive[:-1])
    store_artifact(artifact, tmp_path)
    assert path.read_bytes() == artifact.archive


def test_a_reader_of_the_old_archive_keeps_it_when_it_is_replaced(artifact, tmp_path):
    path = tmp_path / artifact.file_name
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        store_artifact(artifact, tmp_path)
        assert reader.read() == b"old"


@pytest.mark.parametrize("step", ["replace", "fsync", "mkstemp", "chmod", "write"])
def test_a_failure_at_any_step_leaves_the_old_archive_and_nothing_else(
    artifact, tmp_path, monkeypatch, step
):
    target = tmp_path / artifact.file_name
    target.write_bytes(b"old")

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "mkstemp":
        monkeypatch.setattr("tempfile.mkstemp", fail)
    elif step == "write":
        fdopen = os.fdopen

        class Full(io.BytesIO):
            def __init__(self, handle):
                os.close(handle)
                super().__init__()

            write = fail

        monkeypatch.setattr(
            os, "fdopen", lambda fd, mode: Full(fd) if mode == "wb" else fdopen(fd, mode)
        )
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(ArtifactError, match="No space left") as caught:
        store_artifact(artifact, tmp_path)
    monkeypatch.undo()
    assert caught.value.plugin == "sample"
    assert str(tmp_path) in caught.value.message
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [artifact.file_name]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and drops its rights")
def test_a_read_only_folder_is_an_error_that_says_what_to_do(artifact, tmp_path):
    target = tmp_path / artifact.file_name
    target.write_bytes(b"old")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    tmp_path.chmod(0o555)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            try:
                store_artifact(artifact, tmp_path)
                os.write(write, b"stored")
            except ArtifactError as error:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as report:
        said = report.read().decode()
    tmp_path.chmod(0o755)
    assert "BENANA_ARTIFACTS_DIR" in said
    assert "Permission denied" in said or "cannot be written" in said
    assert target.read_bytes() == b"old"


def test_a_folder_in_the_place_of_the_archive_is_named(artifact, tmp_path):
    (tmp_path / artifact.file_name / "inside").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="a folder stands there, in the place of the archive"):
        store_artifact(artifact, tmp_path)


def test_a_folder_that_is_a_file_is_an_error_of_the_artifact(artifact, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError):
        store_artifact(artifact, tmp_path / "file")


def test_a_pipe_in_the_archives_place_hangs_nobody_and_is_replaced(artifact, tmp_path):
    os.mkfifo(tmp_path / artifact.file_name)
    assert read_archive(tmp_path, artifact.file_name) is None
    path = store_artifact(artifact, tmp_path)
    assert read_archive(tmp_path, artifact.file_name) == path.read_bytes() == artifact.archive


def test_a_device_in_the_archives_place_is_not_read(tmp_path):
    (tmp_path / "endless.pyz").symlink_to("/dev/zero")
    assert read_archive(tmp_path, "endless.pyz") is None


def test_a_folder_in_the_archives_place_is_an_error_of_the_artifact(artifact, tmp_path):
    (tmp_path / artifact.file_name).mkdir()
    with pytest.raises(ArtifactError):
        store_artifact(artifact, tmp_path)


def test_an_archive_that_is_not_there_is_none(tmp_path):
    assert read_archive(tmp_path, "missing.pyz") is None
    (tmp_path / "folder.pyz").mkdir()
    assert read_archive(tmp_path, "folder.pyz") is None
    assert read_archive(Path("/dev/null/x"), "missing.pyz") is None


# --- what the version before has compiled ----------------------------------------------------


def after_an_edit(former: Artifact | None, **files: str) -> tuple[Artifact, list[str]]:
    """Return a version that follows another one, and which of its modules were compiled."""
    compiled: list[str] = []
    archive = Archive.verified(former) if former is not None else None
    artifact = compile_plugin(
        source_of({f"{name}.py": text for name, text in files.items()}),
        compiled.append,
        former=archive,
    )
    return artifact, compiled


def test_modules_that_are_as_they_were_are_not_compiled_again():
    nested = "class A:\n    def f(self):\n        return lambda: 1\n"
    former, _ = after_an_edit(None, main="x = 1\n", helper=nested)
    artifact, compiled = after_an_edit(former, main="x = 2\n", helper=nested, new="")
    assert compiled == ["main.py", "new.py"]

    def names(code: types.CodeType) -> set[str]:
        inner = [names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
        return {code.co_filename}.union(*inner)

    archive = Archive.verified(artifact)
    assert names(archive.code("helper.py")) == {f"{archive.label}helper.py"}
    assert former.digest[:12] not in artifact.archive.decode("latin-1")
    fresh = compile_plugin(source_of({"main.py": "x = 2\n", "helper.py": nested, "new.py": ""}))
    one, other = opened(artifact), opened(fresh)
    assert one.namelist() == other.namelist()
    assert one.read("helper.pyc")[:16] == other.read("helper.pyc")[:16]


@pytest.mark.parametrize("what", ["magic", "optimize", "none"])
def test_what_another_python_has_compiled_is_compiled_again(what, monkeypatch):
    former, _ = after_an_edit(None, main="x = 1\n", helper="assert x\n")
    raw = former.archive
    if what == "magic":
        old = importlib.util.MAGIC_NUMBER.hex().encode()
        raw = raw.replace(old, b"0" * len(old))
    elif what == "optimize":
        raw = raw.replace(b'"optimize": 0', b'"optimize": 1')
    else:  # an archive from before that was noted
        raw = raw.replace(b'"optimize"', b'"optimizf"')
    assert raw != former.archive
    monkeypatch.setattr(zipfile.ZipExtFile, "_update_crc", lambda *_: None)
    archive = Archive(Artifact(former.plugin, former.digest, sha256(raw), raw))
    assert archive.code_of("helper.py", b"assert x\n") is None
    assert Archive.verified(former).code_of("helper.py", b"assert x\n") is not None


def test_a_fault_is_found_in_what_the_version_before_could_not_compile():
    former, _ = after_an_edit(None, main="", **{"my-module": "def f(:\n"})
    passed_over: list[str] = []
    compile_plugin(
        source_of({"main.py": "", "my-module.py": "def f(:\n"}),
        passes_over=passed_over.append,
        former=Archive.verified(former),
    )
    assert len(passed_over) == 1
