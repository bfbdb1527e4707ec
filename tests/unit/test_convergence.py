"""Who runs what a row says, of those that there should be."""

import pytest

from app.records import ACTIVE, INACTIVE, ServedRow
from app.worker_records import Crew, LoadRecord, WorkerLoad, convergence_of

ROW = ServedRow("id", "one", 3, ACTIVE, "/x")


def load(generation, reconciled=3, state="serving", error=None, row="id"):
    return LoadRecord("one", row, generation, reconciled, state, error)


def worker(found, *, master=1, size=None, host="a"):
    crew = None if size is None else Crew(host, master, size)
    return WorkerLoad(host, 7, found, "w", crew)


@pytest.mark.parametrize(
    ("found", "current"),
    [
        (load(3), True),
        (load(4, 4), True),
        (load(3, 4, "failed", {"message": "of a later one"}), True),  # it runs what is asked for
        (load(3, 4, "loading"), True),
        (load(2, 2), False),
        (load(2, 3, "failed", {"message": "no"}), False),
        (load(None, 3, "failed", {"message": "no"}), False),
        (load(2, 3, "loading"), False),
        (load(None, 3, "unloaded"), False),
        (load(3, row="another"), False),
        (None, False),
    ],
)
def test_who_runs_a_generation_or_a_later_one_is_current(found, current):
    assert convergence_of(ROW, [worker(found)]).current == current


@pytest.mark.parametrize(
    ("found", "current"),
    [
        (load(None, 3, "unloaded"), True),
        (load(None, 2, "unloaded"), False),
        (load(2, 2), False),
        (load(2, row="another"), True),
        (None, True),
    ],
)
def test_who_runs_nothing_of_an_inactive_row_is_current(found, current):
    row = ServedRow("id", "one", 3, INACTIVE, "/x")
    assert convergence_of(row, [worker(found)]).current == current


@pytest.mark.parametrize("status", [ACTIVE, INACTIVE])
@pytest.mark.parametrize(
    ("sizes", "total", "current"),
    [
        ([(1, 4)], 4, 1),  # three have ended, or never come up
        ([(1, 2), (1, 2)], 2, 2),
        ([(1, 2), (1, 2), (1, 2)], 3, 3),  # one of a round still ends
        ([(1, 2), (2, 3)], 5, 2),  # two masters
        ([(1, None), (1, None)], 2, 2),
        ([(1, 2), (1, 3)], 3, 2),  # one has heard of another number already
    ],
)
def test_who_should_be_there_and_is_not_is_behind(status, sizes, total, current):
    row = ServedRow("id", "one", 3, status, "/x")
    record = load(3) if status == ACTIVE else load(None, 3, "unloaded")
    found = convergence_of(row, [worker(record, master=m, size=s) for m, s in sizes])
    assert (found.total, found.current) == (total, current)
    assert all(behind.pid is None and "has ended" in behind.absent for behind in found.behind)


def test_masters_of_one_id_on_two_machines_are_two():
    workers = [worker(load(3), size=2, host=host) for host in ("a", "b")]
    found = convergence_of(ROW, workers)
    assert [behind.host for behind in found.behind] == ["a", "b"]


@pytest.mark.parametrize("row", [ROW, ServedRow("id", "one", 3, INACTIVE, "/x")])
def test_who_is_not_recorded_is_behind(row):
    here = WorkerLoad("a", 7, None, absent="not recorded")
    assert convergence_of(row, [here]).behind == (here,)
    assert convergence_of(row, [here]).total == 1


FAILED = load(2, 3, "failed", {"message": "no"})


@pytest.mark.parametrize(
    ("behind", "failed"),
    [
        ([load(2, 3, "failed", {"message": "no"})], True),
        (
            [load(None, 3, "failed", {"message": "no"}), load(2, 3, "failed", {"message": "no"})],
            True,
        ),
        ([load(2, 3, "failed", {"message": "away", "passes": True})], False),  # tried again soon
        ([load(2, 2, "failed", {"message": "of the one before"})], False),
        ([load(2, 3, "failed", {"message": "no"}, row="another")], False),
        ([FAILED, load(2, 3, "loading")], False),
        ([load(2, 2)], False),
        ([None], False),
        ([], False),  # all are current
    ],
)
def test_there_is_nothing_to_wait_for_once_all_that_are_behind_have_failed(behind, failed):
    found = convergence_of(ROW, [worker(load(3)), *map(worker, behind)])
    assert found.failed == failed


def test_a_process_that_is_not_there_may_come():
    failed = worker(FAILED, size=2)
    assert not convergence_of(ROW, [failed]).failed
