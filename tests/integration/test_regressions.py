"""What the database keeps of a version that may be worse, and when it sets a row back."""

from dataclasses import replace

import pytest

from app.database.repository import Repository
from app.records import ServedRow
from tests.support.databases import Session
from tests.support.publications import publish

WHY = "20 requests failed"


@pytest.fixture
def rows(repository: Repository) -> Repository:
    """The plugin `one` in two versions, of which the second is served."""
    publish(repository, "one", "/a", "/b", "/c")
    publish(repository, "one", "/a", "/b", "/c", number=2)
    return repository


def served(rows: Repository) -> ServedRow:
    (row,) = rows.served_rows(["one"])
    return row


def before(rows: Repository) -> str:
    return str(served(rows).binary_path).replace("2.pyz", "1.pyz")


def test_several_processes_say_what_answered(rows: Repository) -> None:
    row = served(rows)
    assert rows.regressions.find(row) is None
    assert not row.watched
    rows.regressions.record(row, ["/a"], "/x")
    rows.regressions.record(row, ["/a", "/b"], "/y")
    assert rows.regressions.find(row) == (["/a", "/b"], "/x")
    assert served(rows).watched
    assert rows.served_rows()[0].watched


def test_what_answers_is_out_for_good(rows: Repository) -> None:
    row = served(rows)
    rows.regressions.acquit(row, "/a")
    assert rows.regressions.find(row) is None, "nobody has said that it may be worse"
    rows.regressions.record(row, ["/a", "/b"], "/x")
    for _ in range(2):
        rows.regressions.acquit(row, "/a")
    rows.regressions.record(row, ["/a", "/c"], "/x")
    assert rows.regressions.find(row) == (["/b", "/c"], "/x")
    for template in ("/b", "/c", "/unknown"):
        rows.regressions.acquit(row, template)
    assert rows.regressions.find(row) == ([], "/x")


def test_another_generation_begins_anew(rows: Repository) -> None:
    row = served(rows)
    rows.regressions.record(row, ["/a", "/b"], "/x")
    rows.regressions.acquit(row, "/a")
    rows.raise_generation("one")
    later = served(rows)
    assert later.generation == row.generation + 1
    assert not later.watched
    assert rows.regressions.find(later) is None
    rows.regressions.acquit(later, "/b")
    assert rows.regressions.find(row) == (["/b"], "/x"), "that was another generation"
    rows.regressions.record(later, ["/a"], "/y")
    assert rows.regressions.find(later) == (["/a"], "/y")


def test_what_is_long_ago_counts_no_more(rows: Repository, sql: Session) -> None:
    row = served(rows)
    rows.regressions.record(row, ["/a"], "/x")
    sql(
        "UPDATE plugin_versions SET answered = answered ||"
        " jsonb_build_object('at', extract(epoch FROM clock_timestamp()) - 3601)"
    )
    rows.regressions.record(row, ["/b"], "/x")
    assert rows.regressions.find(row) is None


def test_what_an_older_benana_has_kept_counts_for_nothing(rows: Repository, sql: Session) -> None:
    sql("""UPDATE plugin_versions SET answered = '{"templates": ["/a"], "before": "/x"}'""")
    assert not served(rows).watched
    assert rows.regressions.find(served(rows)) is None
    assert not rows.regressions.set_back(served(rows), before(rows), WHY, ["/a"])


def test_a_row_is_set_back_for_routes_that_have_answered_nobody(rows: Repository) -> None:
    row = served(rows)
    rows.regressions.record(row, ["/a", "/b"], before(rows))
    rows.regressions.acquit(row, "/a")
    for failing in (["/a"], ["/a", "/b"], ["/b", "/c"]):
        assert not rows.regressions.set_back(row, before(rows), WHY, failing)
    assert served(rows) == row
    assert not rows.regressions.set_back(replace(row, generation=9), before(rows), WHY, ["/b"])
    assert rows.regressions.set_back(row, before(rows), WHY, ["/b"])
    now = rows.find_row("one")
    assert now is not None
    assert now.binary_path == before(rows).replace("2.pyz", "1.pyz")
    assert now.error is not None
    assert now.error["message"] == WHY
    assert not served(rows).watched, "nothing counts against the version before"


def test_all_who_listen_are_told(rows: Repository, sql: Session) -> None:
    sql("LISTEN plugin_changes; LISTEN fence")
    rows.regressions.announce("one")
    assert sql.notified() == [{"name": "one", "schema": "public"}]
