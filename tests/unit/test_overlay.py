"""Mappings that share what they hold: against plain dicts."""

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from app.routing.overlay import Draft, OverlayMap

CHANGES = st.lists(st.dictionaries(st.integers(0, 30), st.none() | st.integers(1, 9)), max_size=12)


@given(CHANGES, st.sampled_from([0, 10, 4096]), st.sampled_from([1, 4, 16]))
def test_they_hold_what_dicts_hold_and_the_older_ones_stay(changes, small, share):
    plain: dict[int, int] = {}
    mapping: OverlayMap[int, int] = OverlayMap({}, None, small, share)
    history = [(mapping, dict(plain))]
    for step in changes:
        draft = Draft(mapping)
        for key, value in step.items():
            if value is None:
                draft.drop(key)
                plain.pop(key, None)
            else:
                draft.put(key, value)
                plain[key] = value
            assert draft.find(key) == value
        mapping = draft.finish()
        history.append((mapping, dict(plain)))
    for then, expected in history:
        assert dict(then) == expected
        assert len(then) == len(expected)
        assert [then.find(key) for key in range(31)] == [expected.get(key) for key in range(31)]
        assert then.whole in (None, expected)


def test_a_small_change_of_a_large_mapping_shares_its_base():
    large: OverlayMap[int, int] = OverlayMap(dict.fromkeys(range(10_000), 1))
    draft = Draft(large)
    draft.put(1, 2)
    tracemalloc.start()
    changed = draft.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sys.getsizeof(dict(large)) / 10
    assert changed.whole is None
    many = Draft(changed)
    for key in range(2000):
        many.put(key, 3)
    assert many.finish().whole is not None
