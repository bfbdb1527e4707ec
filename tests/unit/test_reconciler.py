"""When the reconciler looks at what: in a process that others relieve, at its own plugins alone."""

from types import SimpleNamespace
from typing import Any, cast

from app.conditions import Conditions
from app.errors import LoadError
from app.records import ACTIVE, ServedRow
from app.serving.reconciler import Reconciler
from app.serving.shortfalls import Shortfalls
from tests.support.waiting import wait_until


def test_what_others_are_to_serve_is_not_looked_at_again_and_again() -> None:
    """What had failed stayed due, and the thread went round without a pause."""
    conditions, seen = Conditions(), []
    shortfalls = Shortfalls(conditions)
    comparison = SimpleNamespace(
        shortfalls=shortfalls,
        follow_owners=lambda: None,
        follow=seen.append,
        loads_go_on=False,
        versions=SimpleNamespace(retry_at=lambda: None, due=set, names=set),
        timeout=0.0,
    )
    upkeep = SimpleNamespace(look_at=None, broken=False, mend=lambda: None)
    repository = SimpleNamespace(apply_schema=lambda: None)
    parts = cast(tuple[Any, Any, Any], (repository, comparison, upkeep))
    reconciler = Reconciler(*parts, conditions)
    for name in ("own", "other"):
        row = ServedRow(name, name, 2, ACTIVE, "p")
        shortfalls.fail(row, LoadError(name, "it does not load", transient=True), 1)
    shortfalls.retry_transient()
    reconciler.narrow(lambda: {"own"})
    reconciler.start()
    try:
        wait_until(lambda: shortfalls.names() == {"own"}, "the other one is for others")
        reconciler.mark(["other"])
        reconciler.mark(["own", "other"])
        wait_until(lambda: frozenset({"own"}) in seen, "its own is looked at")
        assert set().union(*seen) == {"own"}
        assert not [held for held in conditions.held() if held.plugin == "other"]
    finally:
        reconciler.end()
        shortfalls.end("own")
        reconciler.stop()
