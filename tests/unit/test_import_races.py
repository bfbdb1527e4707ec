"""What a load meets of another thread's imports is tried again; a plugin's own circle is not."""

import importlib._bootstrap
from typing import Any

import pytest

from app.errors import LoadError
from app.loading.import_races import is_import_race

bootstrap: Any = importlib._bootstrap

HALF = "cannot import name 'x' from partially initialized module {!r} (most likely due to …)"
RACES = {
    "deadlock": bootstrap._DeadlockError("deadlock detected by _ModuleLock('django.apps') at 1"),
    "half": ImportError(HALF.format("django.apps")),
    "half attribute": AttributeError("partially initialized module 'six' has no attribute 'moves'"),
    "trees": SystemError("AST constructor recursion depth mismatch (before=46, after=49)"),
}
OTHERS = {
    "own circle": ImportError(HALF.format("_plugins.shop.g1.models")),
    "none": ImportError("cannot import name 'x' from 'django.apps'"),
    "system": SystemError("error return without exception set"),
    "value": ValueError("partially initialized module 'six' is a text of somebody's"),
}


@pytest.mark.parametrize("error", RACES.values(), ids=RACES)
def test_what_another_thread_imports_may_be_tried_again(error: Exception) -> None:
    assert is_import_race(error)
    wrapped = RuntimeError("a library's own words")
    wrapped.__cause__ = error
    assert is_import_race(wrapped)


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_what_would_fail_again_is_none(error: Exception) -> None:
    assert not is_import_race(error)


def test_a_load_that_met_one_is_transient(load_plugin: Any) -> None:
    text = (
        "import importlib._bootstrap as b\n"
        "raise b._DeadlockError('deadlock detected by _ModuleLock')\n"
    )
    with pytest.raises(LoadError) as caught:
        load_plugin(text)
    assert caught.value.transient
    with pytest.raises(LoadError) as caught:
        load_plugin("raise ImportError('no such thing')\n")
    assert not caught.value.transient
