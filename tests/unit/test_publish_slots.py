"""PublishSlots: looks that hang turn slow and give theirs away."""

import pytest

from app.publishing.publish_slots import (
    HUNG_SECONDS,
    SLOTS,
    SLOW_SECONDS,
    SLOW_SLOTS,
    PublishSlots,
)

LATER = SLOW_SECONDS + 0.1
HANGING = HUNG_SECONDS + 0.1


@pytest.fixture
def slots() -> PublishSlots:
    return PublishSlots()


def test_a_quick_look_finds_a_place_until_all_are_taken(slots: PublishSlots) -> None:
    for number in range(SLOTS):
        assert slots.may_begin(hung=False, now=0.0)
        slots.begin(f"folder{number}", 0.0)
    assert not slots.may_begin(hung=False, now=0.0)
    slots.end("folder0", 0.1, tried=True)
    assert slots.may_begin(hung=False, now=0.1)


def test_folders_that_hung_never_take_a_place_from_the_others(slots: PublishSlots) -> None:
    for number in range(8):
        slots.begin(f"hangs{number}", 0.0)
        slots.end(f"hangs{number}", HANGING, tried=True)
        assert slots.hung(f"hangs{number}")
    begun = 0
    while slots.may_begin(hung=True, now=10.0):
        slots.begin(f"hangs{begun}", 10.0)
        begun += 1
    assert begun == SLOW_SLOTS
    for number in range(SLOTS):
        assert slots.may_begin(hung=False, now=10.0)
        slots.begin(f"quick{number}", 10.0)


def test_whoever_hangs_for_the_first_time_gives_its_place_up(slots: PublishSlots) -> None:
    for number in range(SLOTS):
        slots.begin(f"new{number}", 0.0)
    assert not slots.may_begin(hung=False, now=0.5)
    assert slots.next_slow(0.5) == SLOW_SECONDS
    assert slots.may_begin(hung=False, now=LATER)
    assert slots.count_slow(LATER) == SLOTS
    # With so many slow ones the others have one slot, one after the other.
    slots.begin("next", LATER)
    assert not slots.may_begin(hung=False, now=LATER)
    assert slots.may_begin(hung=False, now=2 * LATER)


def test_a_folder_that_is_quick_again_is_forgiven(slots: PublishSlots) -> None:
    slots.begin("one", 0.0)
    slots.end("one", HANGING, tried=True)
    slots.begin("one", 2.5)
    slots.end("one", 2.6, tried=False)
    assert slots.hung("one"), "nothing was tried"
    slots.begin("one", 3.0)
    slots.end("one", 3.1, tried=True)
    assert not slots.hung("one")
    slots.begin("one", 4.0)
    slots.end("one", 4.0 + HANGING, tried=True)
    slots.forget("one")
    assert not slots.hung("one")


def test_what_takes_its_time_waits_for_nothing_that_hangs(slots: PublishSlots) -> None:
    """As a plugin that imports a large library, or any on a machine that is busy."""
    for folder, took in [("imports", LATER), *((f"hangs{n}", HANGING) for n in range(8))]:
        slots.begin(folder, 0.0)
        slots.end(folder, took, tried=True)
    for number in range(SLOW_SLOTS):
        slots.begin(f"hangs{number}", 10.0)
    assert not slots.may_begin(hung=slots.hung("hangs7"), now=10.0)
    assert slots.may_begin(hung=slots.hung("imports"), now=10.0)
