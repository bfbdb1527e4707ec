"""A trial compiles: nothing of it runs in the process that asks, and a compiler may die of it."""

import io
import marshal
import os
import textwrap
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.errors import CompileError
from app.package.archive import Archive
from app.package.store import store_artifact
from app.publishing.compiler import compile_plugin
from app.publishing.trials.trial import TrialRunner
from app.publishing.trials.trial_child import MAX_FORMER_BYTES
from app.publishing.trials.trial_server import _Child
from app.publishing.trials.trial_verdict import judge
from app.records import Artifact, PluginSource
from tests.support.plugins import PLUGIN, sha256, source_of


@pytest.fixture(scope="module")
def runner() -> Iterator[TrialRunner]:
    runner = TrialRunner(None)
    yield runner
    runner.stop()


def sample(**files: str) -> PluginSource:
    """A plugin that registers nothing wrong, with more modules beside its main.py."""
    return source_of({"main.py": PLUGIN} | {f"{name}.py": code for name, code in files.items()})


def table(entries: int) -> str:
    """A module with a table, about 48 bytes an entry."""
    rows = [f'    "key{n}": {{"number": {n}, "text": "value {n}"}},\n' for n in range(entries)]
    return "TABLE = {\n" + "".join(rows) + "}\n"


def test_the_process_that_asks_compiles_nothing(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiling holds the GIL, and with it every plugin's requests")

    runner.run(sample())  # what Python itself compiles, it has compiled
    with monkeypatch.context() as patch:
        patch.setattr("builtins.compile", refuse)
        patch.setattr("marshal.loads", refuse)
        patch.setattr("marshal.dumps", refuse)
        artifact, report = runner.run(sample(helper="x = 1\n"))
    assert [endpoint.path for endpoint in report.endpoints] == ["/sample"]
    archive = Archive.verified(artifact)
    assert archive.code("helper.py").co_filename.endswith("/helper.py")
    assert artifact == compile_plugin(sample(helper="x = 1\n"))


def test_compile_errors_come_back_all_at_once_with_file_and_line(runner: TrialRunner) -> None:
    with pytest.raises(CompileError) as caught:
        runner.run(sample(a="\nx = (\n", b="def f(:\n", c="y = 1\n"))
    assert (caught.value.phase, caught.value.file, caught.value.line) == ("compile", "a.py", 2)
    assert "b.py:1" in caught.value.message
    assert "c.py" not in caught.value.message


@pytest.mark.parametrize(
    "code", ["(" * 250 + ")" * 250, "x = " + "-" * 50_000 + "1", "x = 1" + "()" * 20_000]
)
def test_deep_nesting_is_a_sentence_with_its_file(runner: TrialRunner, code: str) -> None:
    with pytest.raises(CompileError) as caught:
        runner.run(sample(deep=code + "\n"))
    assert caught.value.file == "deep.py"
    assert caught.value.message


def test_compiling_has_a_clock_of_its_own() -> None:
    runner = TrialRunner(None, seconds=0.3)
    try:
        began = time.monotonic()
        runner.run(sample(large=table(15_000)))
        assert time.monotonic() - began > 0.3, "the table is too small to show it"
    finally:
        runner.stop()


def test_what_does_not_compile_in_time_is_named() -> None:
    runner = TrialRunner(None, compile_seconds=0.05)
    try:
        with pytest.raises(CompileError, match=r"within 0.05 s; make it smaller") as caught:
            runner.run(sample(large=table(100_000)))
    finally:
        runner.stop()
    assert (caught.value.phase, caught.value.file) == ("compile", "large.py")


def test_what_compiles_a_little_late_has_its_time_all_the_same() -> None:
    read, write = os.pipe()
    now = time.monotonic()
    child = _Child(
        pid=0, status=-1, compiled=read, deadline=now, seconds=5.0, memory=0, timed_out=True
    )
    os.write(write, b"!")
    child.hear(read)
    assert not child.timed_out
    assert child.deadline >= now + 5.0
    os.close(write)
    child.deadline = now
    child.hear(read)  # its process has ended
    assert child.deadline == now
    os.close(read)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({"code": -11, "timed_out": False}, "ends Python's compiler with SIGSEGV"),
        ({"code": -9, "timed_out": False}, "ends Python's compiler with SIGKILL"),
        ({"code": 70, "timed_out": False}, "ends Python's compiler with exit code 70"),
        ({"code": -24, "timed_out": False}, "does not compile within 20 s"),
    ],
)
def test_a_compiler_that_crashes_is_named_with_the_file(end: dict[str, object], said: str) -> None:
    report = '@compile\n="a.py"\n="sub/deep.py"\nFatal Python error: Segmentation fault\n'
    with pytest.raises(CompileError, match=said) as caught:
        judge(sample(), report, end, b"", (20.0, 5.0))
    assert caught.value.file == "sub/deep.py"


def test_a_plugin_cannot_change_its_archive(runner: TrialRunner) -> None:
    vandal = """\
        import os
        for number in range(3, 64):
            try:
                os.pwrite(number, b"vandal", 0)
                os.ftruncate(number, 6)
            except OSError:
                pass
        """
    artifact, _ = runner.run(
        sample(vandal=textwrap.dedent(vandal), __init__="from . import vandal")
    )
    Archive.verified(artifact)


@pytest.mark.soak
def test_a_literal_of_16_mb_costs_the_trial_and_nobody_else(runner: TrialRunner) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(CompileError) as caught:
        runner.run(sample(huge="x = [" + "1," * 8_000_000 + "]\n"))
    assert caught.value.file in {"huge.py", None}
    assert psutil.Process().memory_info().rss - before < 200 * 1024**2
    runner.run(sample(small=table(10)))


# --- what the version before has compiled ----------------------------------------------------


def told_apart(artifact: Artifact, folder: Path) -> Artifact:
    """Store a version whose bytecode of `helper.py` gives another number than its source."""
    packed = zipfile.ZipFile(io.BytesIO(artifact.archive))
    files = {name: packed.read(name) for name in packed.namelist()}
    files["helper.pyc"] = files["helper.pyc"][:16] + marshal.dumps(compile("X = 2", "x", "exec"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as again:
        for name, raw in files.items():
            again.writestr(name, raw)
    raw = buffer.getvalue()
    changed = Artifact(artifact.plugin, artifact.digest, sha256(raw), raw)
    store_artifact(changed, folder)
    return changed


@pytest.mark.parametrize("former", ["intact", "another hash", "missing", "too large"])
def test_a_trial_takes_from_the_version_before_what_is_as_it_was(
    tmp_path: Path, former: str
) -> None:
    """And only out of an archive that has the hash that its row knows."""
    filler = "#" * (MAX_FORMER_BYTES if former == "too large" else 0)
    before = told_apart(compile_plugin(sample(helper="X = 1\n", filler=filler)), tmp_path)
    known = before.sha256 if former != "another hash" else sha256(b"")
    if former == "missing":
        (tmp_path / before.file_name).unlink()
    runner = TrialRunner(None, artifacts_dir=tmp_path)
    try:
        artifact, _ = runner.run(sample(helper="X = 1\n", new=""), None, (before.digest, known))
    finally:
        runner.stop()
    found: dict[str, object] = {}
    exec(Archive.verified(artifact).code("helper.py"), found)
    assert found["X"] == (2 if former == "intact" else 1)
