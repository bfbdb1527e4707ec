"""Locks of the log that a plugin takes and does not give back."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import pytest

from app.errors import LoadError
from app.loading.load_process import in_load_thread
from app.loading.process_changes import ProcessChanges
from app.logs import ERROR_LOG
from tests.support.plugins import plugin_text

TAKES_HANDLERS = """
import logging
for _handler in logging.getLogger("gunicorn.error").handlers:
    _handler.acquire(); _handler.acquire()
"""
TAKES_ANOTHER_AWAY = (
    TAKES_HANDLERS
    + """
    logging.getLogger("gunicorn.error").removeHandler(_handler)
"""
)
TAKES_LOGGING = """
import logging
logging._lock.acquire()
"""
LOGGING = vars(logging)["_lock"]
OF_HANDLER = "the lock of a handler of the logger gunicorn.error"


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    """A handler of the server's own log."""
    made, log = logging.NullHandler(), logging.getLogger(ERROR_LOG)
    made.lock = threading.RLock()  # a NullHandler has none
    log.addHandler(made)
    yield made
    log.removeHandler(made)


def is_free(lock: threading.RLock) -> bool:
    """Tell whether this thread can take a lock."""
    taken = lock.acquire(blocking=False)
    if taken:
        lock.release()
    return taken


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (TAKES_HANDLERS, OF_HANDLER),
        (TAKES_LOGGING, "logging's own lock"),
        (TAKES_LOGGING + TAKES_HANDLERS, f"logging's own lock, {OF_HANDLER}"),
    ],
    ids=["handlers", "logging", "all"],
)
@pytest.mark.parametrize("fails", [False, True], ids=["loads", "fails"])
def test_locks_that_a_load_keeps_are_released_and_named(
    load_plugin, handler, caplog, code, kept, fails
) -> None:
    code += "raise ValueError('refused')" if fails else ""

    expected = pytest.raises(LoadError, match="refused") if fails else contextlib.nullcontext()
    with expected:
        in_load_thread(lambda: load_plugin(plugin_text(top=code)))
    assert is_free(handler.lock)
    assert is_free(LOGGING)
    assert [r.getMessage() for r in caplog.records if "kept" in r.getMessage()] == [
        f"sample: its import kept {kept}, without which nobody else can log: released; take it by "
        "`with` around what needs it, or leave it to logging"
    ]


def test_locks_that_a_cleanup_keeps_are_released_and_named(load_plugin, handler, caplog) -> None:
    code = TAKES_LOGGING + TAKES_HANDLERS
    plugin = load_plugin(plugin_text(cleanup=code))
    in_load_thread(plugin.dispose)
    assert is_free(handler.lock)
    assert is_free(LOGGING)
    assert f"sample: its cleanup kept logging's own lock, {OF_HANDLER}" in caplog.text


def test_a_handler_that_is_taken_away_with_its_lock_comes_back_without(
    load_plugin, handler, caplog
) -> None:
    def load() -> None:
        with ProcessChanges().loading("sample"):
            load_plugin(plugin_text(top=TAKES_ANOTHER_AWAY))

    in_load_thread(load)
    assert handler in logging.getLogger(ERROR_LOG).handlers
    assert is_free(handler.lock)
    assert "a handler of the logger gunicorn.error" in caplog.text


def test_a_lock_that_another_thread_has_is_left_alone(load_plugin, handler, caplog) -> None:
    with handler.lock:
        in_load_thread(lambda: load_plugin(plugin_text()))
        assert handler.lock._is_owned()
    assert "kept" not in caplog.text
