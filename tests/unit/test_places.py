"""Places: looks that hang turn slow and give theirs away."""

import pytest

from app.publishing.places import PLACES, SLOW_PLACES, SLOW_SECONDS, Places

LATER = SLOW_SECONDS + 0.1


@pytest.fixture
def places() -> Places:
    return Places()


def test_a_quick_look_finds_a_place_until_all_are_taken(places: Places) -> None:
    for number in range(PLACES):
        assert places.may_begin(hung=False, now=0.0)
        places.begin(f"folder{number}", 0.0)
    assert not places.may_begin(hung=False, now=0.0)
    places.end("folder0", 0.1, tried=True)
    assert places.may_begin(hung=False, now=0.1)


def test_folders_that_hung_never_take_a_place_from_the_others(places: Places) -> None:
    for number in range(8):
        places.begin(f"hangs{number}", 0.0)
        places.end(f"hangs{number}", LATER, tried=True)
        assert places.hung(f"hangs{number}")
    begun = 0
    while places.may_begin(hung=True, now=10.0):
        places.begin(f"hangs{begun}", 10.0)
        begun += 1
    assert begun == SLOW_PLACES
    for number in range(PLACES):
        assert places.may_begin(hung=False, now=10.0)
        places.begin(f"quick{number}", 10.0)


def test_whoever_hangs_for_the_first_time_gives_its_place_up(places: Places) -> None:
    for number in range(PLACES):
        places.begin(f"new{number}", 0.0)
    assert not places.may_begin(hung=False, now=0.5)
    assert places.next_slow(0.5) == SLOW_SECONDS
    assert places.may_begin(hung=False, now=LATER)
    assert places.count_slow(LATER) == PLACES
    # With so many slow ones the others have one place, one after the other.
    places.begin("next", LATER)
    assert not places.may_begin(hung=False, now=LATER)
    assert places.may_begin(hung=False, now=2 * LATER)


def test_a_folder_that_is_quick_again_is_forgiven(places: Places) -> None:
    places.begin("one", 0.0)
    places.end("one", LATER, tried=True)
    places.begin("one", 1.5)
    places.end("one", 1.6, tried=False)
    assert places.hung("one"), "nothing was tried"
    places.begin("one", 2.0)
    places.end("one", 2.1, tried=True)
    assert not places.hung("one")
    places.begin("one", 3.0)
    places.end("one", 3.0 + LATER, tried=True)
    places.forget("one")
    assert not places.hung("one")
