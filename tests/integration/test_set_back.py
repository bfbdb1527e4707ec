"""A row that psql sets to another version says what that version is, or is not set at all."""

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from app.database import repository as repository_module
from app.database.repository import Repository
from app.errors import ConflictError, DatabaseUnavailableError
from app.records import PluginRow, artifact_name
from app.routing.conflicts import find_conflict
from tests.support.databases import Session, session
from tests.support.publications import artifact, digest, publish, report
from tests.support.waiting import wait_until


def path_of(name: str, number: int, folder: str = "/b") -> str:
    return f"{folder}/{artifact_name(name, digest(number))}"


def set_back(sql: Session, name: str, number: int, folder: str = "/b") -> None:
    sql("UPDATE plugins SET binary_path = %s WHERE name = %s", path_of(name, number, folder), name)


def row_of(repository: Repository, name: str) -> PluginRow:
    found = repository.find_row(name)
    assert found is not None
    return found


def described(repository: Repository, name: str) -> tuple[Any, ...]:
    """What the row of a plugin says of its version, and its routes."""
    row = row_of(repository, name)
    paths = [endpoint.path for endpoint in row.endpoints]
    return row.version, row.description, row.author, row.source_digest, paths


@pytest.fixture
def two_versions(repository: Repository) -> Repository:
    """The plugin `one` in two versions, of which the second is served."""
    publish(repository, "one", "/a", "/b", version="1.0", description="first", author="Ada")
    publish(repository, "one", "/c", number=2, version="2.0", description="", author="")
    return repository


# --- what is set ---------------------------------------------------------------------------------


def test_a_row_that_is_set_back_says_what_is_served(two_versions: Repository, sql: Session) -> None:
    before = row_of(two_versions, "one")
    sql("LISTEN plugin_changes; LISTEN fence")
    set_back(sql, "one", 1)
    assert described(two_versions, "one") == ("1.0", "first", "Ada", digest(1), ["/a", "/b"])
    assert row_of(two_versions, "one").generation == before.generation + 1
    assert [found["name"] for found in sql.notified()] == ["one"]
    set_back(sql, "one", 2)
    assert described(two_versions, "one") == ("2.0", "", "", digest(2), ["/c"])


@pytest.mark.parametrize(
    "more",
    [
        "status = 'inactive'",
        "version = '9', description = 'mine', author = 'me'",
        "generation = generation + 5",
        'error = \'{"message": "x"}\'',
        "source_path = '/elsewhere'",
    ],
)
def test_whatever_else_the_statement_sets(
    two_versions: Repository, sql: Session, more: str
) -> None:
    sql(f"UPDATE plugins SET binary_path = %s, {more}", path_of("one", 1))
    assert described(two_versions, "one") == ("1.0", "first", "Ada", digest(1), ["/a", "/b"])


def test_only_the_last_part_of_the_path_counts(two_versions: Repository, sql: Session) -> None:
    set_back(sql, "one", 1, "/another/host/bin")
    assert described(two_versions, "one")[0] == "1.0"
    set_back(sql, "one", 1, "/a/third")
    assert described(two_versions, "one") == ("1.0", "first", "Ada", digest(1), ["/a", "/b"])
    sql("UPDATE plugins SET binary_path = %s", artifact_name("one", digest(2)))
    assert described(two_versions, "one")[0] == "2.0"


def test_an_unloaded_plugin_keeps_its_record_and_can_be_set_back(
    two_versions: Repository, sql: Session
) -> None:
    before = described(two_versions, "one")
    sql("UPDATE plugins SET binary_path = NULL")
    assert described(two_versions, "one") == before
    set_back(sql, "one", 1)
    assert described(two_versions, "one")[0] == "1.0"


def test_what_the_manifest_gave_is_kept_with_a_version(
    repository: Repository, sql: Session
) -> None:
    """Versions of an older Benana lack it: what the row has is the best guess then."""
    publish(repository, "one", "/a", description="first", author="Ada")
    sql(
        "UPDATE plugin_versions SET metadata = metadata - 'completed'"
        ' || \'{"description": "", "author": ""}\''
    )
    publish(repository, "one", "/b", number=2, version="2", description="second", author="Bob")
    set_back(sql, "one", 1)
    assert described(repository, "one") == ("1.0", "second", "Bob", digest(1), ["/a"])
    publish(repository, "one", "/a", description="first", author="Ada")
    set_back(sql, "one", 2)
    set_back(sql, "one", 1)
    assert described(repository, "one") == ("1.0", "first", "Ada", digest(1), ["/a"])


def test_a_version_without_a_record_of_its_routes_leaves_them(
    two_versions: Repository, sql: Session
) -> None:
    sql("UPDATE plugin_versions SET metadata = metadata - 'endpoints'")
    set_back(sql, "one", 1)
    assert described(two_versions, "one")[-1] == ["/c"]


def test_other_changes_leave_the_record_as_it_is(two_versions: Repository, sql: Session) -> None:
    sql("UPDATE plugins SET version = 'mine', description = 'my own'")
    sql(
        "INSERT INTO plugin_endpoints (plugin_id, method, path, handler)"
        " SELECT id, 'GET', '/by/hand', 'h' FROM plugins"
    )
    for change in ("status = 'inactive'", "generation = generation + 1", "source_path = '/x'"):
        sql(f"UPDATE plugins SET {change}")
    assert described(two_versions, "one")[:2] == ("mine", "my own")
    assert described(two_versions, "one")[-1] == ["/c", "/by/hand"]


def test_a_deleted_plugin_comes_back_with_a_version_that_is_kept(
    two_versions: Repository, sql: Session
) -> None:
    sql("DELETE FROM plugins")
    sql("INSERT INTO plugins (name, binary_path) VALUES ('one', %s)", path_of("one", 1))
    assert described(two_versions, "one") == ("1.0", "first", "Ada", digest(1), ["/a", "/b"])
    publish(two_versions, "two", "/c")
    with pytest.raises(psycopg2.errors.ExclusionViolation, match="/c of the plugin 'one'"):
        set_back(sql, "one", 2)


def test_a_row_of_a_dump_is_taken_as_it_is(two_versions: Repository, sql: Session) -> None:
    """Its endpoints come next, with ids of their own."""
    sql("DELETE FROM plugins")
    sql(
        "INSERT INTO plugins (name, version, binary_path) VALUES ('one', 'dumped', %s)",
        path_of("one", 1),
    )
    assert described(two_versions, "one") == ("dumped", None, None, None, [])


# --- what is refused -----------------------------------------------------------------------------


NOT_KEPT = [
    "",
    "/etc/passwd",
    "/b/one.so",
    "/b/one-0123.pyz",
    f"/b/one-{digest(1)}.pyz/",
    f"/b/one-{digest(1)}.pyz\n",
    f"/b/one-{digest(10).upper()}.pyz",
    f"/b/two-{digest(3)}.pyz",
    f"/b/bone-{digest(1)}.pyz",
    f"/b/one-{digest(9)}.pyz",
]


def test_a_version_that_is_not_kept_is_refused(two_versions: Repository, sql: Session) -> None:
    publish(two_versions, "two", "/two", number=3)
    before = two_versions.list_rows()
    for path in NOT_KEPT:
        with pytest.raises(psycopg2.IntegrityError) as caught:
            sql("UPDATE plugins SET binary_path = %s WHERE name = 'one'", path)
        said = caught.value.diag
        assert "'one'" in (said.message_primary or ""), path
        assert said.constraint_name == "plugins_binary_path_kept"
        assert said.sqlstate in {"23503", "23514"}
        hint = (said.message_hint or "").partition(": ")[2]
        assert [found[0] for found in sql(hint)] == [digest(2), digest(1)], "the hint can be run"
    assert two_versions.list_rows() == before


def test_a_route_that_is_somebody_elses_now_is_refused(
    two_versions: Repository, sql: Session
) -> None:
    publish(two_versions, "two", "/b")
    before = two_versions.list_rows()
    with pytest.raises(psycopg2.errors.ExclusionViolation) as caught:
        set_back(sql, "one", 1)
    said = caught.value.diag
    assert said.message_primary == "the route /b of the plugin 'one' is owned by the plugin 'two'"
    assert "1.0" in (said.message_detail or "")
    assert "'two'" in (said.message_hint or "")
    assert two_versions.list_rows() == before
    sql("DELETE FROM plugins WHERE name = 'two'")
    set_back(sql, "one", 1)
    assert described(two_versions, "one")[0] == "1.0"


def test_a_route_that_is_served_again_is_not_free(two_versions: Repository, sql: Session) -> None:
    set_back(sql, "one", 1)
    with pytest.raises(ConflictError, match="/a of the plugin 'two' is owned by the plugin 'one'"):
        publish(two_versions, "two", "/a")
    publish(two_versions, "two", "/c")  # free now


TEMPLATES = [
    *("/", "/a", "//a", "/a/", "/a/b", "/a/v", "/a/v.v", "/v", "/A", "/ä/{x}", "/ä/{y}"),
    *("/a/{x}", "/a/{y}", "/a/{x:int}", "/a/{x:path}", "/a/{x}/b", "/a/{y}/c", "/a/{x}/{y}"),
    *("/a/{x}.json", "/a/{y}.json", "/a/{x}.{y}", "/a/{p}.{q}", "/a/{x}-{y}", "/a/b/{x:path}"),
    *("/{x}", "/{y}/a", "/{x:int}", "/{x}.json", "/v{x}", "/{x}v", "/{x}{y}", "/a(b)/{x}"),
]


def test_postgresql_and_falcon_agree_on_which_templates_exclude_each_other(sql: Session) -> None:
    pairs = list(itertools.combinations_with_replacement(TEMPLATES, 2))
    falcon = {(one, other) for one, other in pairs if find_conflict("one", [one], {"two": [other]})}
    ours, theirs = zip(*pairs, strict=True)
    for way in ("a, b", "b, a"):
        found = sql(
            "SELECT a, b FROM unnest(%s::text[], %s::text[]) p (a, b)"
            f" WHERE uri_templates_exclude({way})",
            *(list(ours), list(theirs)),
        )
        assert set(found) == falcon
    assert len(TEMPLATES) < len(falcon) < len(pairs) // 4


@pytest.mark.parametrize(
    ("kept", "taken"),
    [("/{x}", "/{y}"), ("/{x}/a", "/{y}/b"), ("/a/{x}", "/a/{y:int}/c"), ("//a", "/a")],
)
def test_templates_with_fields_are_judged_as_falcon_does(
    repository: Repository, sql: Session, kept: str, taken: str
) -> None:
    publish(repository, "one", kept)
    publish(repository, "one", "/free", number=2)
    publish(repository, "two", taken)
    publish(repository, "three", "/other/{x}", "/lit")
    with pytest.raises(psycopg2.errors.ExclusionViolation, match="the plugin 'two'"):
        set_back(sql, "one", 1)


# --- several at once -----------------------------------------------------------------------------


@pytest.fixture
def swapped(repository: Repository) -> Repository:
    """Two plugins that have changed their routes with each other, one step after the other."""
    publish(repository, "one", "/a")
    publish(repository, "two", "/b")
    publish(repository, "one", "/free", number=2)
    publish(repository, "two", "/a", number=2)
    publish(repository, "one", "/b", number=3)
    return repository


def test_two_plugins_change_their_routes_in_one_statement(
    swapped: Repository, sql: Session
) -> None:
    paths = [path_of("one", 1), path_of("two", 1)]
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        set_back(sql, "one", 1)
    sql(
        "UPDATE plugins p SET binary_path = v.path"
        " FROM unnest(%s::text[], %s::text[]) v (name, path) WHERE v.name = p.name",
        *(["one", "two"], paths),
    )
    assert described(swapped, "one")[-1] == ["/a"]
    assert described(swapped, "two")[-1] == ["/b"]


def test_of_several_rows_all_are_set_or_none(swapped: Repository, sql: Session) -> None:
    before = swapped.list_rows()
    with pytest.raises(psycopg2.errors.ExclusionViolation):  # both would have /a
        sql(
            "UPDATE plugins SET binary_path = CASE name WHEN 'one' THEN %s ELSE %s END",
            *(path_of("one", 1), path_of("two", 2, "/else")),
        )
    assert swapped.list_rows() == before


@pytest.mark.soak
def test_a_thousand_rows_are_set_back_in_a_moment(repository: Repository, sql: Session) -> None:
    sql(
        "INSERT INTO plugin_versions SELECT 'p' || n, lpad(d::text, 32, '0'), '', '',"
        " jsonb_build_object('version', d::text, 'endpoints',"
        " json_build_array(json_build_array('GET', '/p' || n || '/' || d, 'h')))"
        " FROM generate_series(1, 1000) n, generate_series(1, 2) d"
    )
    sql(
        "INSERT INTO plugins (name, version, binary_path) SELECT 'p' || n, '2',"
        " '/b/p' || n || '-' || lpad('2', 32, '0') || '.pyz' FROM generate_series(1, 1000) n"
    )
    # A plan that was made for one row is kept by the session.
    sql("UPDATE plugins SET binary_path = '/b/p1-' || lpad('1', 32, '0') || '.pyz'"
        " WHERE name = 'p1'")  # fmt: skip
    began = time.monotonic()
    sql("UPDATE plugins SET binary_path = '/b/' || name || '-' || lpad('1', 32, '0') || '.pyz'")
    assert time.monotonic() - began < 5.0
    assert sql("SELECT count(*) FROM plugin_endpoints WHERE path LIKE '%%/1'") == [(1000,)]


# --- beside a publish ----------------------------------------------------------------------------


@pytest.fixture
def psql(url: str) -> Iterator[Session]:
    with session(url) as opened:
        yield opened


def test_a_publish_that_takes_the_route_at_the_same_time_is_waited_for(
    two_versions: Repository, sql: Session, psql: Session
) -> None:
    written, go_on = threading.Event(), threading.Event()

    def take() -> None:
        with two_versions.publishing() as publication:
            publication.keep_version(artifact("two", 1), report("two", "/a"))
            publication.lock_row("two")
            publication.save(
                None,
                report("two").metadata,
                report("two", "/a").endpoints,
                source_path="/p/two",
                binary_path=path_of("two", 1),
                source_digest=digest(1),
                status="active",
            )
            written.set()
            assert go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        publishing = pool.submit(take)
        assert written.wait(10)
        setting = pool.submit(set_back, psql, "one", 1)
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "psql waits")
        go_on.set()
        publishing.result(10)
        with pytest.raises(psycopg2.errors.ExclusionViolation, match="'two'"):
            setting.result(10)


def test_a_publish_waits_for_a_route_that_is_being_set_back(
    two_versions: Repository, sql: Session, psql: Session
) -> None:
    psql("BEGIN")
    set_back(psql, "one", 1)
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish, two_versions, "two", "/a")
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "the publish waits")
        psql("COMMIT")
        with pytest.raises(ConflictError, match="'one'"):
            publishing.result(10)


def test_a_transaction_that_cannot_see_what_is_published_meanwhile_is_refused(
    two_versions: Repository, psql: Session
) -> None:
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        psql(f"BEGIN ISOLATION LEVEL {level}")
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState) as caught:
            set_back(psql, "one", 1)
        assert "READ COMMITTED" in (caught.value.diag.message_hint or "")
        psql("ROLLBACK")
        psql(f"BEGIN ISOLATION LEVEL {level}")
        psql("UPDATE plugins SET status = 'inactive'")
        psql("COMMIT")


def test_a_version_is_not_dropped_while_a_row_is_set_to_it(
    repository: Repository, sql: Session, psql: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "KEPT_VERSIONS", 2)
    for number in (1, 2):
        publish(repository, "one", "/a", number=number, version=str(number))
    psql("BEGIN")
    set_back(psql, "one", 1)
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish, repository, "one", "/a", number=3, version="3")
        wait_until(lambda: sql("SELECT 1 FROM pg_locks WHERE NOT granted"), "the publish waits")
        psql("COMMIT")
        publishing.result(10)
    assert described(repository, "one")[0] == "3"
    set_back(sql, "one", 3)
    set_back(sql, "one", 2)
    for number in (4, 5, 6):
        with repository.publishing() as publication:
            publication.lock_row("one")
            publication.keep_version(artifact("one", number), report("one", "/a"))
            publication.prune_versions("one")
    set_back(sql, "one", 2, "/again")
    with pytest.raises(psycopg2.errors.ForeignKeyViolation, match="not kept"):
        set_back(sql, "one", 1)


def test_a_publish_writes_its_row_and_endpoints_once(
    two_versions: Repository, sql: Session
) -> None:
    """What the trigger does for psql, a publish does itself."""
    sql("LISTEN plugin_changes; LISTEN fence")
    ends = sql("SELECT id FROM plugin_endpoints")
    publish(two_versions, "one", "/c", number=4, version="4", description="d", author="a")
    publish(two_versions, "new", "/new", number=5, version="5")
    assert described(two_versions, "one") == ("4", "d", "a", digest(4), ["/c"])
    assert sql("SELECT id FROM plugin_endpoints ORDER BY id")[:1] == ends
    assert [found["operation"] for found in sql.notified()] == ["UPDATE", "INSERT"]


def test_a_row_that_appears_during_a_publish_is_looked_at_again(
    repository: Repository, sql: Session
) -> None:
    found = report("one", "/a")
    with pytest.raises(DatabaseUnavailableError, match="again"), repository.publishing() as mine:
        assert mine.lock_row("one") is None
        sql("INSERT INTO plugins (name) VALUES ('one')")
        mine.save(
            None,
            found.metadata,
            found.endpoints,
            source_path="/p/one",
            binary_path=path_of("one", 1),
            source_digest=digest(1),
            status="active",
        )
    publish(repository, "one", "/a")


# --- rows and roles of all sorts -----------------------------------------------------------------


RENAMES = {
    "one": ["UPDATE plugins SET name = 'two' WHERE name = 'one'"],
    "one and its folder": [
        "UPDATE plugins SET name = 'two', source_path = '/p/two' WHERE name = 'one'"
    ],
    "two swapped over a third name": [
        "UPDATE plugins SET name = 'third' WHERE name = 'one'",
        "UPDATE plugins SET name = 'one' WHERE name = 'other'",
        "UPDATE plugins SET name = 'other' WHERE name = 'third'",
    ],
    "two swapped in one statement": [
        "UPDATE plugins SET name = CASE name WHEN 'one' THEN 'other' ELSE 'one' END"
    ],
}


@pytest.mark.parametrize("renames", RENAMES)
def test_a_plugin_that_is_served_keeps_its_name(
    two_versions: Repository, sql: Session, renames: str
) -> None:
    """The row was not served any more, and its folder could not be published."""
    publish(two_versions, "other", "/other")
    before = two_versions.list_rows()
    sql("BEGIN")
    with pytest.raises(psycopg2.errors.CheckViolation) as caught:
        for statement in RENAMES[renames]:
            sql(statement)
    sql("ROLLBACK")
    assert re.search(
        r"the plugin 'one' cannot be renamed to '\w+' while it serves one-0+2\.pyz: its code and "
        r"its archives have its name\s+HINT: +Rename its folder, and the name in its code, to ",
        str(caught.value),
    )
    assert two_versions.list_rows() == before


def test_a_row_takes_the_name_of_the_archive_that_it_is_set_to(
    two_versions: Repository, sql: Session
) -> None:
    publish(two_versions, "other", "/other", version="3.0")
    sql("DELETE FROM plugins WHERE name = 'other'")
    sql("UPDATE plugins SET name = 'other', binary_path = %s", path_of("other", 1))
    assert described(two_versions, "other")[0] == "3.0"
    assert described(two_versions, "other")[-1] == ["/other"]


def test_what_is_not_served_is_renamed_and_back(two_versions: Repository, sql: Session) -> None:
    sql("UPDATE plugins SET binary_path = NULL")
    before = described(two_versions, "one")
    sql("UPDATE plugins SET name = 'two'")
    assert described(two_versions, "two") == before
    sql("UPDATE plugins SET name = 'one'")
    set_back(sql, "one", 1)
    assert described(two_versions, "one")[0] == "1.0"


def test_names_that_were_swapped_without_the_triggers_can_be_swapped_back(
    two_versions: Repository, sql: Session
) -> None:
    """As by an earlier Benana, or in a restored dump."""
    publish(two_versions, "other", "/other")
    before = {row.name: row.id for row in two_versions.list_rows()}
    swap = [f"UPDATE plugins SET name = {new!r} WHERE name = {old!r}"
            for old, new in (("one", "third"), ("other", "one"), ("third", "other"))]  # fmt: skip
    sql("ALTER TABLE plugins DISABLE TRIGGER USER")
    try:
        for statement in swap:
            sql(statement)
    finally:
        sql("ALTER TABLE plugins ENABLE TRIGGER USER")
    for statement in swap:
        sql(statement)
    assert {row.name: row.id for row in two_versions.list_rows()} == before
    publish(two_versions, "one", "/new", number=5)
    publish(two_versions, "other", "/other/new", number=5)


def test_a_name_that_is_none_is_said_to_be_so(two_versions: Repository, sql: Session) -> None:
    for statement in (
        "UPDATE plugins SET name = 'My Plugin', binary_path = NULL",
        "INSERT INTO plugins (name) VALUES ('My Plugin')",
    ):
        with pytest.raises(psycopg2.errors.CheckViolation) as caught:
            sql(statement)
        assert "the name of the plugin is 'My Plugin', expected 1 to 63 of a-z" in str(caught.value)
        assert caught.value.diag.constraint_name == "plugins_name_check"
    sql("ALTER TABLE plugins DROP CONSTRAINT plugins_name_check; ALTER TABLE plugins DISABLE"
        " TRIGGER USER; UPDATE plugins SET name = 'My Plugin';"
        " ALTER TABLE plugins ENABLE TRIGGER USER")  # fmt: skip
    with pytest.raises(psycopg2.errors.CheckViolation, match="can be renamed or deleted"):
        sql("UPDATE plugins SET status = 'inactive'")
    sql("UPDATE plugins SET name = 'one'")
    sql(
        "ALTER TABLE plugins ADD CONSTRAINT plugins_name_check"
        " CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$') NOT VALID"
    )
    assert described(two_versions, "one")[0] == "2.0"


def test_a_row_of_the_go_design_is_changed_in_all_but_its_path(
    repository: Repository, sql: Session
) -> None:
    sql(
        "INSERT INTO plugins (id, name, version, binary_path, source_path)"
        " VALUES ('uuid-1', 'one', '0.1.0', '/abs/bin/plugins/one.so', '../one')"
    )
    sql("UPDATE plugins SET status = 'inactive'")
    sql("UPDATE plugins SET status = 'active', generation = generation + 1, version = '2'")
    with pytest.raises(psycopg2.errors.CheckViolation, match="one-<digest>"):
        sql("UPDATE plugins SET binary_path = '/abs/bin/plugins/other.so'")
    publish(repository, "one", "/a")
    assert described(repository, "one")[0] == "1.0"


@pytest.fixture
def operator(
    two_versions: Repository, sql: Session, url: str, new_database: Callable[[], str]
) -> Iterator[Session]:
    """A session of a role that may change plugins and nothing else."""
    sql("DROP ROLE IF EXISTS operator_of_tests")
    sql("CREATE ROLE operator_of_tests")
    sql("GRANT SELECT, UPDATE ON plugins TO operator_of_tests")
    sql("GRANT CREATE ON SCHEMA public TO operator_of_tests")
    with session(url) as opened:
        opened("SET ROLE operator_of_tests")
        yield opened
    sql("DROP OWNED BY operator_of_tests; DROP ROLE operator_of_tests")


def test_a_role_with_rights_on_plugins_alone_sets_back(
    two_versions: Repository, operator: Session
) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        operator("SELECT 1 FROM plugin_versions")
    set_back(operator, "one", 1)
    assert described(two_versions, "one")[0] == "1.0"
    # Tables of its own are not taken for ours, and the functions are for our triggers only.
    operator("CREATE TEMP TABLE plugin_versions (plugin_name text, source_digest text,"
             " metadata jsonb)")  # fmt: skip
    operator("INSERT INTO plugin_versions VALUES ('one', %s, '{\"version\": \"x\"}')", digest(9))
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        set_back(operator, "one", 9)
    operator("CREATE TABLE mine (id text, name text, binary_path text)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        operator("CREATE TRIGGER t BEFORE UPDATE ON mine FOR EACH ROW"
                 " EXECUTE FUNCTION describe_plugin_version()")  # fmt: skip


def test_the_triggers_need_no_search_path(two_versions: Repository, psql: Session) -> None:
    """pg_restore and the apply worker of logical replication have none."""
    psql("SET search_path = ''")
    psql("UPDATE public.plugins SET binary_path = %s", path_of("one", 1))
    psql("INSERT INTO public.plugins (name) VALUES ('two')")
    psql("DELETE FROM public.plugins WHERE name = 'two'")
    assert described(two_versions, "one")[0] == "1.0"
