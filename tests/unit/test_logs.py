"""One event is one line of the log, whoever's text is in it."""

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from app import logs
from app.logs import DATE_FORMAT, FORMAT, LineFormatter, one_line

FORGED = "[2026-01-01 00:00:00 +0000] [1] [INFO] all is well"
ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger like the server's; `read` gives the lines that it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(FORMAT, DATE_FORMAT))
    logger = logging.getLogger("benana.plugins.test_logs")
    logger.propagate = False
    logger.addHandler(handler)
    logger.read = lambda: stream.getvalue()  # type: ignore[attr-defined]
    yield logger
    logger.removeHandler(handler)
    logger.propagate = True


def events(text: str) -> list[str]:
    """The lines that stand at the margin, by the widest notion of a line there is."""
    return [line for line in text.splitlines() if not line.startswith(logs.INDENT)]


@pytest.mark.parametrize("end", ENDS)
def test_a_line_end_makes_no_second_line(log, end):
    log.warning("%s failed", f"/boom/a{end}{FORGED}")
    log.warning(f"/boom/a{end}{FORGED}")  # where the text is the message itself
    assert len(events(log.read())) == 2
    assert FORGED in log.read()  # it is to be seen, in its place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\tb", r"a\tb"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("\x00\x7f\x80", r"\x00\x7f\x80"),
        ("caf\udce9", r"caf\udce9"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066x\u2069\u200f", r"\u2066x\u2069\u200f"),
        ("äöü ß 日本語 🍌 e\u0301 \\n %s", "äöü ß 日本語 🍌 e\u0301 \\n %s"),
    ],
)
def test_control_characters_are_escaped_and_all_others_stay(text, shown):
    assert one_line(text) == shown


def test_what_cannot_be_encoded_is_written(tmp_path):
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        stream.write(one_line("\ud800 \udfff \udc80"))


def raising(error: BaseException) -> tuple:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


@pytest.mark.parametrize("end", ENDS)
def test_a_traceback_keeps_its_lines_and_begins_none_at_the_margin(log, end):
    log.error("it failed", exc_info=raising(ValueError(f"bad{end}{FORGED}")))
    text = log.read()
    assert len(events(text)) == 1
    assert "    Traceback (most recent call last):\n" in text
    assert "\n      File " in text
    assert "raise error\n" in text
    assert "\n    ValueError: bad" in text


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup(f"two\n{FORGED}", [ValueError(f"a\n{FORGED}"), KeyError("b")]),
        SyntaxError("bad", ("a\n.py", 1, 1, f"x\n{FORGED}")),
        type(f"Odd\n{FORGED}", (Exception,), {})("x"),
        type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})(),
    ],
    ids=["group", "syntax", "name", "no text"],
)
def test_no_kind_of_exception_begins_a_line(log, error):
    error.add_note(f"a note\n{FORGED}")
    error.__cause__ = RuntimeError(f"cause\n{FORGED}")
    log.error("it failed", exc_info=raising(error))
    assert len(events(log.read())) == 1


def test_a_traceback_that_another_handler_has_written_is_not_taken_over(log):
    record = log.makeRecord(
        log.name, logging.ERROR, "f", 1, "it failed", (), raising(ValueError(f"x\n{FORGED}"))
    )
    logging.Formatter().format(record)  # it leaves its text in the record
    assert record.exc_text is not None
    log.handle(record)
    record.exc_info = None  # as of a record that came through a queue
    log.handle(record)
    assert len(events(log.read())) == 2


def test_a_stack_is_indented(log):
    log.error("here", stack_info=True)
    assert len(events(log.read())) == 1
    assert "\n    Stack (most recent call last):\n" in log.read()


def test_an_event_looks_as_before(log):
    log.info("Benana serves %s", "http://127.0.0.1:9999")
    log.warning("x")
    assert log.read().endswith("] [WARNING] x\n")


@contextlib.contextmanager
def gunicorn_log(**settings: object) -> Iterator[Logger]:
    """In the test itself: a handler keeps the stream that it was made with."""
    config = Config()
    config.set("accesslog", "-")
    for name, value in settings.items():
        config.set(name, value)
    log = Logger(config)
    yield log
    for logger in (log.error_log, log.access_log):
        for handler in list(logger.handlers):
            close(handler)
            logger.removeHandler(handler)


def close(handler: logging.Handler) -> None:
    if isinstance(handler, logging.FileHandler):
        handler.close()


def test_gunicorns_own_lines_cannot_be_forged_either(capsys):
    with gunicorn_log() as log:
        for _ in range(2):
            logs.protect_gunicorn()
            log.error("Error handling request %s", f"/a\n{FORGED}")
            log.access_log.info("%s", f"GET /a\x85{FORGED}")
            access, error = capsys.readouterr()
            assert len(error.splitlines()) == len(access.splitlines()) == 1
            assert "] [ERROR] Error handling request /a\\n[" in error
            assert access.startswith("GET /a")
            log.setup(log.cfg)  # as HUP does


def test_a_handler_of_the_operators_own_stays_as_it_is():
    with gunicorn_log() as log:
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(own := logging.Formatter("%(message)s"))
        log.error_log.addHandler(handler)
        logs.protect_gunicorn()
        assert handler.formatter is own


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger as it is in a new process; as it was, afterwards."""
    logger = logging.getLogger()
    handlers, level, hook = list(logger.handlers), logger.level, threading.excepthook
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    threading.excepthook = hook


def test_an_event_goes_to_gunicorns_error_log_and_where_it_goes_after_hup(root, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    with gunicorn_log(errorlog=str(first)) as log:
        logs.follow_gunicorn(log.cfg)
        logging.getLogger("app.publishing").warning("a\n%s", FORGED)
        for handler in log.error_log.handlers:
            close(handler)  # gunicorn leaves it open
        log.cfg.set("errorlog", str(second))
        log.setup(log.cfg)
        logging.getLogger("benana.plugins.x").info("between")
        logs.follow_gunicorn(log.cfg)
        logging.getLogger("app.serving").info("later")
    assert first.read_text().count("\n") == 1
    assert "] [WARNING] a\\n[2026" in first.read_text()
    assert [line.rpartition(" ")[2] for line in second.read_text().splitlines()] == [
        "between",
        "later",
    ]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", 4), ("info", 3), ("WARNING", 2), ("error", 1), ("critical", 0)],
)
def test_the_log_level_is_gunicorns(root, tmp_path, level, shown):
    path = tmp_path / "log"
    with gunicorn_log(errorlog=str(path), loglevel=level) as log:
        logs.follow_gunicorn(log.cfg)
        ours = logging.getLogger("app.manager")
        for say in (ours.debug, ours.info, ours.warning, ours.error):
            say("said")
        assert ours.isEnabledFor(logging.DEBUG) == (level == "debug")  # nothing is made in vain
    assert path.read_text().count("said") == shown


def logconfig(path: str, **more: object) -> dict[str, object]:
    """As an operator writes it; gunicorn adds a root logger that has the handler `console`."""
    return {
        "formatters": {},
        "handlers": {
            "console": {"class": "logging.StreamHandler"},
            "file": {"class": "logging.FileHandler", "filename": path},
        },
        "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["file"]}},
        **more,
    }


def test_an_operators_own_error_log_gets_the_events_and_nobody_else(root, tmp_path, capfd):
    path = tmp_path / "own"
    with gunicorn_log(logconfig_dict=logconfig(str(path))) as log:
        logs.follow_gunicorn(log.cfg)
        logging.getLogger("app.manager").info("said")
    assert path.read_text() == "said\n"
    assert "said" not in "".join(capfd.readouterr())


def test_where_the_operator_configures_the_root_logger_it_stays_his(root, tmp_path):
    path, other = tmp_path / "own", tmp_path / "root"
    configured = logconfig(str(path), root={"level": "INFO", "handlers": ["other"]})
    configured["handlers"]["other"] = {"class": "logging.FileHandler", "filename": str(other)}  # type: ignore[index]
    with gunicorn_log(logconfig_dict=configured) as log:
        logs.follow_gunicorn(log.cfg)
        logging.getLogger("app.manager").info("said")
        close(root.handlers[0])
    assert (path.read_text(), other.read_text()) == ("", "said\n")


def test_a_handler_that_a_configuration_file_puts_on_the_root_logger_stays(root, tmp_path):
    own = logging.StreamHandler(stream := io.StringIO())
    root.addHandler(own)
    with gunicorn_log(errorlog=str(tmp_path / "log")) as log:
        for _ in range(2):
            logs.follow_gunicorn(log.cfg)
        logging.getLogger("app.manager").error("said")
    assert stream.getvalue() == "said\n"
    assert (tmp_path / "log").read_text().count("said") == 1


class Raising(logging.Handler):
    """A handler as a plugin may add one."""

    def emit(self, record):
        raise ConnectionError("the chat is away")


@pytest.fixture
def guarded(monkeypatch):
    """Python's logging as it is in a server."""
    for name in ("callHandlers", "makeRecord"):
        monkeypatch.setattr(logging.Logger, name, getattr(logging.Logger, name))
    monkeypatch.setattr(logs, "_told_of", set())
    former = logging.getLogRecordFactory()
    logs.guard_log()
    yield
    logging.setLogRecordFactory(former)


def test_a_handler_that_raises_keeps_nobodys_line(guarded, caplog):
    raising = Raising()
    logging.root.handlers.insert(0, raising)
    try:
        for number in range(3):
            logging.getLogger("app.of_the_server").error("line %d", number)
    finally:
        logging.root.removeHandler(raising)
    assert [f"line {number}" in caplog.text for number in range(3)] == [True] * 3
    said = [text for text in caplog.messages if "raises ConnectionError: the chat is away" in text]
    assert len(said) == 1
    assert "test_logs.Raising" in said[0]


def test_a_record_factory_that_raises_keeps_nobodys_line(guarded, caplog):
    def of_a_request(*arguments, **named):
        raise KeyError("no request")

    logging.setLogRecordFactory(of_a_request)
    log = logging.getLogger("app.of_the_server")
    log.error("line %d", 1, extra={"plugin": "shop"})
    with pytest.raises(KeyError):
        log.error("line 2", extra={"message": "is taken"})
    assert "line 1" in caplog.messages
    assert [r.plugin for r in caplog.records if r.getMessage() == "line 1"] == ["shop"]
    assert sum("of_a_request, raises KeyError: 'no request'" in m for m in caplog.messages) == 1


def test_who_logs_what_cannot_be_a_record_is_told(guarded):
    with pytest.raises(KeyError, match="overwrite"):
        logging.getLogger("app.of_the_server").error("line", extra={"message": "is taken"})
