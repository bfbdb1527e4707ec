"""The trial's own process: what starts it, and that it is gone at the end."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.errors import SupersededError
from app.publishing.trial import TrialRunner
from app.publishing.trial_server import _FIRST_PLUGIN
from app.records import Manifest, PluginSource


def first() -> PluginSource:
    return PluginSource("first", Path(), {"main.py": _FIRST_PLUGIN}, Manifest(), "0" * 32)


def helpers() -> list[psutil.Process]:
    """Return the trial processes of this process."""
    children = psutil.Process().children()
    return [child for child in children if "app.publishing.trial_server" in child.cmdline()]


@pytest.fixture
def runner() -> Iterator[TrialRunner]:
    runner = TrialRunner(None)
    yield runner
    runner.stop()


def test_it_is_started_once_ahead_or_when_it_is_needed(runner: TrialRunner) -> None:
    assert helpers() == []
    runner.prepare()
    runner.prepare()
    (helper,) = helpers()
    _, report = runner.run(first())
    assert [endpoint.path for endpoint in report.endpoints] == ["/first", "/first/{number:int}"]
    assert helpers() == [helper]


def test_after_its_end_nothing_starts_it_again(runner: TrialRunner) -> None:
    runner.run(first())
    runner.stop()
    with pytest.raises(SupersededError, match="the server stops"):
        runner.run(first())
    runner.prepare()
    assert helpers() == []


def test_an_end_amid_trials_leaves_no_process() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            runner = TrialRunner(None)
            runner.prepare()
            tried = first()

            def run(runner: TrialRunner = runner, tried: PluginSource = tried) -> None:
                try:
                    while True:
                        runner.run(tried)
                except SupersededError:
                    pass

            threads = [threading.Thread(target=run) for _ in range(4)]
            for thread in threads:
                thread.start()
            runner.run(tried)
            runner.stop()
            for thread in threads:
                thread.join(10.0)
                assert not thread.is_alive()
            assert helpers() == []
    finally:
        sys.setswitchinterval(interval)
