"""Two hosts, each with folders of its own, over one database."""

import hashlib
import shutil
import time
from pathlib import Path

import pytest

from app.publishing.sight import SCAN_SECONDS
from tests.support.requester import Audit, Requester, counting, session, wait_number, wait_published
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until


def two_hosts(make_server: MakeServer, **second: str) -> tuple[Server, Server]:
    """Return two servers over one database; only the first is started."""
    one = make_server(WEB_CONCURRENCY="2").start()
    assert one.database_url is not None
    two = make_server(database=False, DATABASE_URL=one.database_url, **second)
    two.database_url = one.database_url
    return one, two


def hashes(server: Server, name: str) -> dict[str, str]:
    """Return the SHA-256 of a plugin's archives in a host's folder, by digest."""
    found = server.artifacts.glob(f"{name}-*.pyz")
    return {
        p.stem.removeprefix(f"{name}-"): hashlib.sha256(p.read_bytes()).hexdigest() for p in found
    }


def kept(server: Server, name: str) -> dict[str, str]:
    """Return the SHA-256 of a plugin's archives in the database, computed there, by digest."""
    rows = server.sql(
        "SELECT source_digest, encode(sha256(archive), 'hex'), archive_sha256"
        " FROM plugin_versions WHERE plugin_name = %s",
        name,
    )
    assert all(computed == noted for _, computed, noted in rows)
    return {digest: computed for digest, computed, _ in rows}


def test_a_host_without_sources_serves_the_others_edits(make_server: MakeServer) -> None:
    one, two = two_hosts(make_server, BENANA_WATCH="off")
    empty = two.plugins
    two.plugins = two.home / "not watched"  # where `start` writes its own plugin to
    one.write("shared", counting("shared", 1))
    wait_number(one, "shared", 1)
    two.start()
    wait_number(two, "shared", 1, 1.0)
    audit = Audit(one)
    took = []
    with (
        Requester(one, "shared", threads=2) as first,
        Requester(two, "shared", threads=2) as second,
    ):
        for number in range(2, 6):
            one.write("shared", counting("shared", number))
            wait_published(one, "shared", number)
            took.append(wait_number(two, "shared", number, 2.0))
            wait_number(one, "shared", number, 2.0)
    first.assert_flawless(audit)
    second.assert_flawless(audit)
    # The same bytes everywhere: published once, and fetched from the database by the other host.
    versions = kept(one, "shared")
    (digest,) = one.sql("SELECT source_digest FROM plugins WHERE name = 'shared'")[0]
    assert hashes(one, "shared")[digest] == hashes(two, "shared")[digest] == versions[digest]
    assert len(hashes(two, "shared")) == 5
    for found, sha256 in hashes(two, "shared").items():
        assert versions[found] == sha256
    assert list(empty.iterdir()) == []
    # Every process of both hosts is waited for, whichever is asked.
    for server in (one, two):
        answer = server.post("/plugins/shared/reload?wait=5")
        assert answer.status == 200, answer
        assert answer.json["workers"] == {"total": 4, "current": 4, "behind": []}
    assert {w["pid"] for w in two.get("/workers").json} == one.workers() | two.workers()
    # An archive that was damaged or lost on the second host is fetched anew.
    archive = two.artifacts / f"shared-{digest}.pyz"
    for damage in (b"garbage", None):
        if damage is None:
            archive.unlink()
        else:
            archive.write_bytes(damage)
        assert two.post("/plugins/shared/reload?wait=5").status == 200
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == versions[digest]
    # Off and on at one host is off and on at both.
    assert two.post("/plugins/shared/toggle?wait=5").json["status"] == "inactive"
    one.wait_gone("shared", 0.5)
    assert one.post("/plugins/shared/toggle?wait=5").json["status"] == "active"
    wait_number(two, "shared", 5, 0.5)
    # Removed at the host that has the source is removed at both.
    shutil.rmtree(one.plugins / "shared")
    one.wait_gone("shared")
    two.wait_gone("shared", 1.0)
    print(f"\nthe other host served an edit at most {max(took) * 1000:.0f} ms after its commit")


@pytest.mark.soak
def test_a_host_that_was_down_serves_what_was_edited_meanwhile(make_server: MakeServer) -> None:
    one, two = two_hosts(make_server, BENANA_WATCH="off")
    two.plugins = two.home / "not watched"
    one.write("missed", counting("missed", 1))
    wait_number(one, "missed", 1)
    two.start()
    two.stop()
    one.write("missed", counting("missed", 2))
    one.write("fresh", counting("fresh", 1))
    wait_number(one, "missed", 2)
    wait_number(one, "fresh", 1)
    before = one.sql("SELECT name, generation FROM plugins ORDER BY name")
    two.start()
    wait_number(two, "missed", 2, 0.5)
    wait_number(two, "fresh", 1, 0.5)
    assert one.sql("SELECT name, generation FROM plugins ORDER BY name") == before


@pytest.mark.soak
def test_hosts_with_different_folders_do_not_fight(make_server: MakeServer) -> None:
    one, two = two_hosts(make_server)
    one.write("torn", counting("torn", 1))
    wait_number(one, "torn", 1)
    audit = Audit(one)
    two.write("torn", counting("torn", 2))
    with Requester(one, "torn", threads=2) as requester:
        two.start()
        wait_number(two, "torn", 2)
        wait_number(one, "torn", 2)
        # Neither says anything to the other's version, in some scans of each.
        watch_that_nothing_changes(one, 4 * SCAN_SECONDS)
        assert len(audit.changes("torn")) <= 2, audit.changes("torn")
        # An edit at either host is one publish, and the other host follows.
        for server, number in ((one, 3), (two, 4), (one, 5)):
            server.write("torn", counting("torn", number))
            wait_number(one, "torn", number)
            wait_number(two, "torn", number)
        assert len(audit.changes("torn")) == 2 + 3
        # Both at once: a publish each, and then quiet.
        one.write("torn", counting("torn", 6))
        two.write("torn", counting("torn", 7))
        with session(one) as run:
            wait_until(
                lambda: run("SELECT count(*) FROM audit WHERE name = 'torn'")[0][0] >= 2 + 3 + 2,
                "both have published",
            )
        last = int(one.sql("SELECT version FROM plugins WHERE name = 'torn'")[0][0])
        wait_number(one, "torn", last)
        wait_number(two, "torn", last)
        watch_that_nothing_changes(one, SCAN_SECONDS + 1.0)
        assert len(audit.changes("torn")) == 2 + 3 + 2
    requester.assert_flawless(audit)


def watch_that_nothing_changes(server: Server, seconds: float) -> None:
    """Fail as soon as a row changes within some seconds."""
    rows = "SELECT name, generation, updated_at FROM plugins ORDER BY name"
    ends = time.monotonic() + seconds
    with session(server) as run:
        before = run(rows)
        while time.monotonic() < ends:
            assert run(rows) == before
            time.sleep(0.1)


@pytest.mark.soak
def test_an_older_folder_that_starts_later_does_not_win(make_server: MakeServer) -> None:
    one, two = two_hosts(make_server)
    one.write("aged", counting("aged", 1))
    two.write("aged", counting("aged", 1))  # the same deployment
    wait_number(one, "aged", 1)
    audit = Audit(one)
    two.start()
    assert len(audit.changes("aged")) == 1, "the same content is no publish"
    two.stop()
    one.write("aged", counting("aged", 2))
    wait_number(one, "aged", 2)
    two.start()  # its folder is what it was
    wait_number(two, "aged", 2, 0.5)
    watch_that_nothing_changes(one, 1.0)
    assert [change[2] for change in audit.changes("aged")] == ["1", "2"]
    # The same edit on both, as a deployment makes it, is one publish.
    for server in (one, two):
        server.write("aged", counting("aged", 3))
    wait_number(one, "aged", 3)
    wait_number(two, "aged", 3)
    for server in (one, two):  # whichever was second has looked, too
        server.write("fence", counting("fence", server.port))
        wait_published(one, "fence", server.port)
    assert [change[2] for change in audit.changes("aged")] == ["1", "2", "3"]
    # A host's folder that is gone unregisters only what that host published.
    two.write("aged", counting("aged", 4))
    wait_number(one, "aged", 4)
    shutil.rmtree(one.plugins / "aged")
    one.write("fence", counting("fence", 1))
    wait_published(one, "fence", 1)
    wait_number(one, "aged", 4)
    wait_number(two, "aged", 4)
    shutil.rmtree(two.plugins / "aged")
    one.wait_gone("aged")
    two.wait_gone("aged")


@pytest.mark.soak
def test_the_artifacts_of_two_hosts_are_intact(make_server: MakeServer, tmp_path: Path) -> None:
    one, two = two_hosts(make_server)
    two.start()
    for number in range(1, 6):
        for server in (one, two):
            name = "left" if server is one else "right"
            server.write(name, counting(name, number))
        for server in (one, two):
            wait_number(server, "left", number)
            wait_number(server, "right", number)
    for name in ("left", "right"):
        versions = kept(one, name)
        for server in (one, two):
            found = hashes(server, name)
            assert len(found) == 5
            assert found.items() <= versions.items()
