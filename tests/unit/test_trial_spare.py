"""The next trial's process is there before the trial, and whatever becomes of it, trials run."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.errors import LoadError
from app.publishing.trials.trial import TrialRunner
from app.publishing.trials.trial_spare import SPARE_SECONDS
from tests.support.plugins import PLUGIN, source_of
from tests.support.waiting import wait_until

SAYS_ITS_PROCESS = f"""
{PLUGIN}
import os
raise ValueError(f"process {{os.getpid()}}")
"""


@pytest.fixture
def runner() -> Iterator[TrialRunner]:
    runner = TrialRunner(None)
    runner.prepare()
    yield runner
    runner.stop()


def spare_of(runner: TrialRunner) -> int:
    """Wait for the process that waits for a trial, and return it."""
    assert runner._process is not None
    server = psutil.Process(runner._process._process.pid)
    (spare,) = wait_until(lambda: server.children(), "a process waits for the next trial")
    return spare.pid


def process_of_a_trial(runner: TrialRunner) -> int:
    with pytest.raises(LoadError, match="process") as caught:
        runner.run(source_of({"main.py": SAYS_ITS_PROCESS}))
    return int(caught.value.message.rpartition(" ")[2])


def test_a_trial_runs_in_the_process_that_waited_and_then_another_waits(
    runner: TrialRunner,
) -> None:
    first = spare_of(runner)
    assert process_of_a_trial(runner) == first
    second = spare_of(runner)
    assert second != first
    assert process_of_a_trial(runner) == second


def test_one_that_was_killed_is_not_waited_for(runner: TrialRunner) -> None:
    killed = spare_of(runner)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(killed))
    assert process_of_a_trial(runner) != killed
    assert spare_of(runner) != killed


def test_trials_at_once_have_a_process_each(runner: TrialRunner) -> None:
    spare = spare_of(runner)
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(process_of_a_trial(runner))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(set(seen)) == 4
    assert spare in seen


def test_it_ends_with_the_server_of_the_trials(runner: TrialRunner) -> None:
    spare = spare_of(runner)
    runner.stop()
    wait_until(lambda: not psutil.pid_exists(spare))


def test_no_temporary_folder_is_left_whenever_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a trial tries a plugin first; it is killed in the middle of that."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for pause in (0.0, 0.01, 0.02):
        runner = TrialRunner(None)
        runner.run(source_of({"main.py": PLUGIN}))
        threading.Event().wait(SPARE_SECONDS + pause)  # the spare one is being made
        runner.stop()
        assert list(tmp_path.iterdir()) == []
