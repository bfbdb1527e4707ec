"""What a host keeps for a start without the database."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from app.records import ACTIVE, ServedRow
from app.serving import last_known_good as last_known_good_module
from app.serving.last_known_good import LastKnownGood

ROW = ServedRow("id", "one", 1, ACTIVE, "/b/one-00000000000000000000000000000001.pyz", "ab" * 32)


def numbers(folder: Path) -> dict[str, int]:
    """What a process that starts would find: generations by plugin."""
    return {row.name: row.generation for row in LastKnownGood(folder).rows()}


def test_what_was_noted_is_written_all_at_once(tmp_path: Path) -> None:
    last_known_good = LastKnownGood(tmp_path)
    last_known_good.remember(ROW)
    last_known_good.remember(replace(ROW, name="two"))
    last_known_good.remember(replace(ROW, generation=3))
    assert numbers(tmp_path) == {}
    last_known_good.write()
    assert numbers(tmp_path) == {"one": 3, "two": 1}
    assert LastKnownGood(tmp_path).rows()[0] == replace(ROW, generation=3)
    last_known_good.forget("one")
    last_known_good.write()
    assert numbers(tmp_path) == {"two": 1}


def test_what_another_process_wrote_already_is_left_alone(tmp_path: Path) -> None:
    first, second = LastKnownGood(tmp_path), LastKnownGood(tmp_path)
    first.remember(ROW)
    first.write()
    file = tmp_path / ".served/one"
    before = file.stat().st_ino
    second.remember(ROW)
    second.write()
    assert file.stat().st_ino == before
    second.remember(replace(ROW, generation=2))
    second.write()
    assert numbers(tmp_path) == {"one": 2}


def test_what_cannot_be_written_stays_noted_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last_known_good = LastKnownGood(tmp_path)
    (tmp_path / ".served").write_text("no folder")
    last_known_good.remember(ROW)
    last_known_good.remember(replace(ROW, name="two"))
    last_known_good.write()
    last_known_good.remember(replace(ROW, generation=2))
    last_known_good.write()
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / ".served").unlink()
    last_known_good.write()
    assert numbers(tmp_path) == {"one": 2, "two": 1}
    (tmp_path / ".served/one").unlink()
    (tmp_path / ".served/one").mkdir()
    last_known_good.remember(replace(ROW, generation=3))
    last_known_good.write()
    assert caplog.text.count("cannot be written") == 2, "it had been well in between"


def test_one_that_cannot_be_written_holds_up_no_other(tmp_path: Path) -> None:
    last_known_good = LastKnownGood(tmp_path)
    (tmp_path / ".served/one").mkdir(parents=True)
    last_known_good.remember(ROW)
    last_known_good.remember(replace(ROW, name="two"))
    last_known_good.write()
    last_known_good.write()
    assert numbers(tmp_path) == {"two": 1}


def test_what_comes_while_a_write_fails_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_known_good = LastKnownGood(tmp_path)

    def full(_path: Path, _data: bytes) -> None:
        last_known_good.remember(replace(ROW, generation=2))
        raise OSError(28, "No space left on device")

    last_known_good.remember(ROW)
    with monkeypatch.context() as disk:
        disk.setattr(last_known_good_module, "write_whole", full)
        last_known_good.write()
    last_known_good.write()
    assert numbers(tmp_path) == {"one": 2}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\x00 [", b"[]", b"5", b"null", b'["id", 1]', b"{}", b'{"id": "id"}'),
        json.dumps({**asdict(ROW), "later": 1}).encode(),
        json.dumps(asdict(replace(ROW, name="two"))).encode(),
    ],
)
def test_a_damaged_file_costs_one_plugin_its_head_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    last_known_good = LastKnownGood(tmp_path)
    for name in ("one", "two"):
        last_known_good.remember(replace(ROW, name=name))
    last_known_good.write()
    (tmp_path / ".served/one").write_bytes(content)
    assert numbers(tmp_path) == {"two": 1}
    assert f"{tmp_path}/.served/one is left out" in caplog.text
    last_known_good.remember(ROW)
    last_known_good.write()
    assert numbers(tmp_path) == {"one": 1, "two": 1}


def test_what_an_older_version_listed_is_read_and_replaced(tmp_path: Path) -> None:
    old = json.dumps([ROW.id, ROW.generation, ROW.binary_path, ROW.archive_sha256])
    file = tmp_path / ".served/one"
    file.parent.mkdir()
    file.write_text(old)
    last_known_good = LastKnownGood(tmp_path)
    assert last_known_good.rows() == [ROW]
    last_known_good.remember(ROW)
    last_known_good.write()
    kept = json.loads(file.read_bytes())
    assert kept["generation"] == 1
    assert LastKnownGood(tmp_path).rows() == [ROW]
    # What the older version does with it: four values, or the file is none.
    with pytest.raises(ValueError, match="too many"):
        _, _, _, _ = kept


def test_what_may_still_end_its_process_does_not_take_the_place_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written within two seconds, and when it had ended all workers nothing was served."""
    now = 1000.0
    monkeypatch.setattr("app.serving.last_known_good.time.monotonic", lambda: now)
    last_known_good = LastKnownGood(tmp_path)
    last_known_good.remember(ROW)
    now += 6.0
    last_known_good.remember(replace(ROW, name="two"))
    last_known_good.write(5.0)
    assert numbers(tmp_path) == {"one": 1}
    last_known_good.remember(replace(ROW, generation=2))
    now += 4.0
    last_known_good.write(5.0)
    assert numbers(tmp_path) == {"one": 1}
    assert last_known_good.find_before(replace(ROW, generation=2)) == ROW
    now += 2.0
    last_known_good.write(5.0)
    assert numbers(tmp_path) == {"one": 2, "two": 1}
    last_known_good.remember(replace(ROW, generation=3))
    last_known_good.forget("two")
    last_known_good.write(5.0)
    assert numbers(tmp_path) == {"one": 2}
    last_known_good.write()  # the process ends, and not by a plugin
    assert numbers(tmp_path) == {"one": 3}


def test_what_was_served_for_a_moment_takes_no_place_before_the_next_load(tmp_path: Path) -> None:
    """A version that ends its process 2 s after its load was what workers went back to."""
    good = LastKnownGood(tmp_path)
    good.remember(ROW)
    good.write_one("one", 5.0)
    assert numbers(tmp_path) == {"one": 1}, "where nothing is known, it is better than nothing"
    good.remember(replace(ROW, generation=2))
    good.write_one("one", 5.0)
    assert numbers(tmp_path) == {"one": 1}
    good.write_one("one", 0.0)
    assert numbers(tmp_path) == {"one": 2}
