"""A trial may take so much memory, and reserve as much as it likes."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import CompileError, LoadError
from app.publishing.trials.trial import TrialRunner
from app.publishing.trials.trial_memory import MIB, resident_bytes
from app.publishing.trials.trial_verdict import judge
from tests.support.plugins import PLUGIN, plugin_text, source_of

LIMIT_MB = 400

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps to no such limit")


@pytest.fixture(scope="module")
def runner() -> Iterator[TrialRunner]:
    runner = TrialRunner(None, memory_mb=LIMIT_MB)
    yield runner
    runner.stop()


def tried(runner: TrialRunner, top: str) -> None:
    runner.run(source_of({"main.py": plugin_text(top=top)}))


@linux
@pytest.mark.parametrize(
    "mapping",
    [
        "mmap.mmap(-1, 1 << 40, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x4000)",
        "mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=0)",
    ],
    ids=["shared, as LMDB", "without access, as WebAssembly"],
)
def test_what_is_only_reserved_is_not_limited(runner: TrialRunner, mapping: str) -> None:
    tried(runner, f"import mmap\nKEPT = {mapping}")


@linux
@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("KEPT = bytearray(600 << 20)", "MemoryError"),
        ("import mmap\nKEPT = mmap.mmap(-1, 600 << 20, flags=34)", "OSError: [Errno 12]"),
        (
            "import threading\nthreading.stack_size(250 << 20)\nfor _ in range(2):\n"
            "    threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "can't start new thread",
        ),
    ],
    ids=["bytes", "a private mapping", "stacks of threads"],
)
def test_what_the_kernel_refuses_names_the_limit_its_setting_and_the_place(
    runner: TrialRunner, top: str, said: str
) -> None:
    with pytest.raises(LoadError) as caught:
        tried(runner, top)
    message = caught.value.message
    assert said in message
    assert "a trial may take 400 MiB of memory" in message
    assert "set BENANA_TRIAL_MEMORY_MB to more" in message
    assert (caught.value.phase, caught.value.file) == ("import", "main.py")
    assert not caught.value.passes, "an edit is needed, and no other try"


def test_shared_memory_that_is_touched_is_seen(runner: TrialRunner) -> None:
    top = """
import mmap
KEPT = mmap.mmap(-1, 2 << 30)
for page in range(0, len(KEPT), 4096):
    KEPT[page] = 1
"""
    with pytest.raises(LoadError) as caught:
        tried(runner, top)
    assert caught.value.message == (
        "it took more than 400 MiB of memory, the limit of a trial: take less at import and in "
        "initialize, or set BENANA_TRIAL_MEMORY_MB to more"
    )
    assert (caught.value.phase, caught.value.file) == ("import", "main.py")
    assert caught.value.line in {5, 6}, "the loop"


@linux
def test_pages_of_a_file_that_is_mapped_are_the_kernels(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 250 * MIB)
    top = f"""
import mmap
FILE = open({str(large)!r}, "rb")
FLAGS = mmap.MAP_SHARED | mmap.MAP_POPULATE
KEPT = mmap.mmap(FILE.fileno(), 0, flags=FLAGS, prot=mmap.PROT_READ)
import time
time.sleep(0.3)
"""
    small = TrialRunner(None, seconds=20.0, memory_mb=150)
    try:
        tried(small, top)
    finally:
        small.stop()


def test_other_errors_say_nothing_of_memory(runner: TrialRunner) -> None:
    with pytest.raises(LoadError) as caught:
        tried(runner, "open('/nowhere/at/all')")
    assert "BENANA_TRIAL_MEMORY_MB" not in caught.value.message


def test_compiling_that_took_too_much_says_so() -> None:
    end = {"code": -9, "timed_out": False, "too_large": 400 * MIB}
    with pytest.raises(CompileError, match="compiling it takes more than 400 MiB") as caught:
        judge(source_of({"main.py": PLUGIN}), '@compile\n="main.py"\n', end, b"", (20.0, 5.0))
    assert caught.value.message.endswith("set BENANA_TRIAL_MEMORY_MB to more")
    assert caught.value.file == "main.py"


def test_the_memory_of_a_process_is_told_and_of_none_is_nothing() -> None:

    assert resident_bytes(os.getpid()) > 10 * MIB
    assert resident_bytes(2**22 + 1) == 0
