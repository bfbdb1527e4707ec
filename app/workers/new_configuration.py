"""The configuration that HUP has gunicorn read anew; one that cannot be used changes nothing."""

import contextlib
import importlib.util
import io
import os
import ssl
import sys
import traceback
from collections.abc import Callable
from typing import Any

from app.errors import SettingsError
from app.workers.addresses import refuse_busy_port
from app.workers.hook_check import faulty_hooks, what_to_mend


def read_anew(app: Any, read: Callable[[], None], former: Any) -> None:
    """Have gunicorn read its configuration, and refuse what would end the master afterwards.

    gunicorn itself ends where its file has an error, and where an address cannot be bound after
    it has closed the ones before.

    Args:
        app: gunicorn's application, which has the configuration as `cfg`.
        read: reads it anew.
        former: the configuration before, which stays where this one is refused.

    Raises:
        SettingsError: it cannot be used; `app.cfg` is the former one.
    """
    printed = io.StringIO()
    before, path = dict(vars(app)), list(sys.path)
    # Not its name: the folder may have been removed, and another one may have taken its name.
    folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
    try:
        _enter(former.chdir)
        with contextlib.redirect_stderr(printed):  # what gunicorn prints of it is said here
            read()
        app.cfg.worker_class  # noqa: B018 - is imported by that
        if faults := faulty_hooks(app.cfg):
            raise SettingsError(what_to_mend(faults))
        ports = {address[1] for address in former.address if isinstance(address, tuple)}
        refuse_busy_port(app.cfg, known=ports)
        _refuse_unusable_files(app)
    except BaseException as error:
        vars(app).clear()
        vars(app).update(before, cfg=former)  # gunicorn has taken more of it back than `cfg`
        sys.path[:] = path
        os.fchdir(folder)
        cause = error.__context__ if isinstance(error, SystemExit) else error
        raise SettingsError(
            f"HUP changes nothing, because the configuration cannot be used: "
            f"{_named_setting(printed.getvalue())}{_describe(cause)}. "
            "Mend it, and send HUP again."
        ) from error
    finally:
        os.close(folder)


def _enter(folder: str) -> None:
    """Enter the folder that has the name of the one that the server was started in.

    gunicorn enters it later: it asks for the present one before, which may have been removed.

    Raises:
        SettingsError: there is none.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise SettingsError(
            f"the server's folder {folder} cannot be entered: {error.strerror}"
        ) from None


def _refuse_unusable_files(app: Any) -> None:
    """Refuse what each worker would fail at: an application or a certificate that is not there.

    Raises:
        SettingsError: one is not.
    """
    configuration = app.cfg
    module = str(getattr(app, "app_uri", None) or "").partition(":")[0]
    try:
        missing = bool(module) and importlib.util.find_spec(module) is None
    except (ImportError, ValueError) as error:
        raise SettingsError(f"the application {module!r} cannot be imported: {error}") from None
    if missing:
        raise SettingsError(f"there is no module {module!r}, which wsgi_app names")
    if not configuration.is_ssl:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(configuration.certfile, configuration.keyfile)
    except (OSError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"certfile {configuration.certfile} and keyfile {configuration.keyfile} cannot be "
            f"used: {reason}"
        ) from None


def _named_setting(printed: str) -> str:
    """Return which setting has a value that it cannot have, as gunicorn prints it, and only so."""
    lines = [line for line in printed.splitlines() if line.startswith("Invalid value for ")]
    return f"{lines[0]}; " if lines else ""


def _describe(cause: BaseException | None) -> str:
    if cause is None:
        return "it ends the process"
    if isinstance(cause, SettingsError):
        return str(cause).rstrip(".")
    text = f"{type(cause).__name__}: {str(cause).rstrip('.')}"
    if isinstance(cause, SyntaxError):  # which says the line, and not the whole path
        return f"{text} ({cause.filename})"
    frames = [
        f for f in traceback.extract_tb(cause.__traceback__) if "/gunicorn/" not in f.filename
    ]
    own = [frame for frame in frames if not frame.filename.startswith("<")]
    return f"{text} ({own[-1].filename}, line {own[-1].lineno})" if own else text
