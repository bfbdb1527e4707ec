"""Pauses of Python's collections, which are no switching."""

import gc
from collections.abc import Iterator

import pytest

from app.loading import garbage


@pytest.fixture(autouse=True)
def _collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_a_pause_is_seen_by_nobody_who_asks_what_is_switched() -> None:
    garbage.pause("one")
    assert not gc.isenabled()
    assert garbage.is_on()
    garbage.resume("one")
    assert gc.isenabled()


def test_pauses_overlap_and_the_last_one_ends_them() -> None:
    garbage.pause("one")
    garbage.pause("two")
    garbage.resume("one")
    assert not gc.isenabled()
    garbage.resume("one")  # it has no pause any more
    assert not gc.isenabled()
    garbage.resume("two")
    assert gc.isenabled()


def test_what_is_switched_within_a_pause_counts_after_it() -> None:
    garbage.pause("one")
    garbage.switch(False)
    assert not garbage.is_on()
    garbage.resume("one")
    assert not gc.isenabled()
    garbage.pause("one")
    garbage.switch(True)
    assert not gc.isenabled()
    garbage.resume("one")
    assert gc.isenabled()


def test_it_is_switched_at_once_where_nobody_pauses() -> None:
    garbage.switch(False)
    assert not gc.isenabled()
    garbage.switch(True)
    assert gc.isenabled()
