"""A process loads one generation of a plugin whose libraries keep it, and no other."""

from app.errors import LoadError
from app.records import AUTO, FRESH, HOT, ServedRow
from app.serving.failed_loads import FailedLoads
from app.serving.load_once import LoadedOnce


def row(generation, reload=AUTO, why="", row_id="id"):
    return ServedRow(row_id, "one", generation, "active", "/x", reload=reload, reload_why=why)


def test_hot_generations_follow_each_other():
    once = LoadedOnce()
    for generation in range(1, 5):
        assert once.may_load(row(generation))
        once.begin(row(generation))


def test_the_first_generation_is_loaded_and_no_other():
    once = LoadedOnce()
    assert once.may_load(row(1, FRESH))
    once.begin(row(1, FRESH, "it keeps Tag"))
    assert not once.may_load(row(2, FRESH))
    assert not once.may_load(row(2)), "what keeps it is the earlier one"
    assert not once.may_load(row(3, row_id="another row of that name"))
    assert once.why(row(2)) == "it keeps Tag"


def test_a_version_that_needs_fresh_workers_is_not_loaded_after_one_that_does_not():
    once = LoadedOnce()
    once.begin(row(1))
    assert not once.may_load(row(2, FRESH))
    assert once.may_load(row(2))


def test_what_its_author_says_is_hot_is_loaded():
    once = LoadedOnce()
    once.begin(row(1, FRESH))
    assert once.may_load(row(2, HOT))


def test_what_failed_is_not_imported_again():
    once = LoadedOnce()
    once.begin(row(1, FRESH))
    assert once.may_load(row(1, FRESH)), "an `initialize` that is tried again"
    failure = once.fail(row(1, FRESH), "broken")
    assert failure.alone
    assert not failure.blames_earlier
    assert not once.may_load(row(1, FRESH))


def test_a_load_that_fails_after_another_generation_goes_to_fresh_workers():
    once = LoadedOnce()
    once.begin(row(1))
    once.begin(row(2))
    failure = once.fail(row(2), "one: import failed: Duplicated timeseries")
    assert "Duplicated timeseries" in failure.blames_earlier
    assert not once.may_load(row(2))
    assert "Duplicated timeseries" in once.why(row(2))


def test_a_first_load_that_fails_is_nobody_elses_fault():
    once = LoadedOnce()
    once.begin(row(1))
    assert not once.fail(row(1), "broken").blames_earlier
    assert once.may_load(row(1))


def test_where_the_author_says_hot_a_failure_stays_one():
    once = LoadedOnce()
    once.begin(row(1))
    once.begin(row(2, HOT))
    assert not once.fail(row(2, HOT), "broken").blames_earlier
    assert once.may_load(row(2, HOT))


def test_what_failed_in_a_fresh_process_is_known_to_the_next(tmp_path):
    error = LoadError("one", "it broke", phase="import", file="main.py", line=7)
    FailedLoads(tmp_path).note(row(2, FRESH), error)
    found = FailedLoads(tmp_path).find(row(2, FRESH))
    assert str(found) == str(error)
    assert FailedLoads(tmp_path).find(row(3, FRESH)) is None


def test_a_host_that_keeps_no_note_says_so(tmp_path, caplog):
    (tmp_path / ".failed").write_text("in the way")
    FailedLoads(tmp_path).note(row(2, FRESH), LoadError("one", "it broke"))
    assert "each tries it" in caplog.text
    assert FailedLoads(tmp_path).find(row(2, FRESH)) is None
