"""The folders that are to be looked at, with the time as it is told."""

import pytest

from app.publishing import quiet_period
from app.publishing.work_queue import WorkQueue


def test_an_event_is_waited_for_whatever_was_planned_before() -> None:
    """A look planned a second ago made an event's folder due at once."""
    queue = WorkQueue()
    queue.later("one", 1000.0, 1.0)
    queue.event("one", "main.py", "modified", 1000.9, lambda: 0.0)
    assert queue.take(1000.9 + quiet_period.QUIET_SECONDS) is None, "its writer has not closed it"
    queue.event("one", "main.py", "created", 1000.95, lambda: 0.0)
    assert queue.take(1000.95) is None
    assert queue.take(1000.95 + quiet_period.QUIET_SECONDS) is not None


@pytest.mark.parametrize("told", [False, True])
def test_what_was_superseded_is_looked_at_again_without_an_event(told: bool) -> None:
    queue = WorkQueue()
    now = 1000.0
    queue.quiet("one", now)
    folder, attempt = queue.take(now + 1.0) or pytest.fail("it is due")
    attempt.superseded.set()
    if told:
        queue.event("one", "main.py", "created", now + 1.1, lambda: 0.0)
    queue.done(folder, now + 1.1, tried=False, locked=None)
    assert queue.take(now + 1.1 + quiet_period.QUIET_SECONDS) is not None


def test_a_folder_that_is_superseded_again_and_again_is_restless() -> None:
    queue = WorkQueue()
    queue.quiet("one", 0.0)
    restless = []
    for _ in range(3):
        _, attempt = queue.take(1e9) or pytest.fail("it is due")
        restless.append(attempt.restless)
        attempt.began -= quiet_period.RESTLESS_SECONDS
        attempt.superseded.set()
        queue.done("one", attempt.began, tried=False, locked=None)
    assert restless == [False, True, True]
    _, attempt = queue.take(1e9) or pytest.fail("it is due")
    queue.done("one", 0.0, tried=True, locked=None)
    queue.quiet("one", 0.0)
    _, attempt = queue.take(1e9) or pytest.fail("it is due")
    assert not attempt.restless
