"""The WSGI callable of gunicorn: the server, once `app.hooks` has put it into its worker.

Nothing that has a descriptor, a thread or an identity is made by the import: with `--preload` that
happens in the master, and all workers would share it.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.util import import_app

from app.workers.hook_check import HOOKS, faulty_hooks, sentence

if TYPE_CHECKING:
    from app.server import BenanaApp

log = logging.getLogger("gunicorn.error")  # ours may not lead anywhere without the hooks


class Entry:
    """Answers as the server, or says why there is none."""

    def __init__(self, gunicorn: Any) -> None:
        """Make it; `gunicorn` is gunicorn's own application object, None outside of it."""
        self._gunicorn = gunicorn
        self.answer: Callable[..., Iterable[bytes]] = self._refuse
        self.app: BenanaApp | None = None
        """The server of this process."""

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a WSGI request."""
        return self.answer(env, start_response)

    def begin(self, app: "BenanaApp") -> None:
        """Answer with a server from now on."""
        self.app = app
        self.answer = app

    def fault(self) -> str:
        """Return why there is no server, empty if nothing is wrong with gunicorn's settings."""
        if self._gunicorn is None:
            return sentence(dict.fromkeys(HOOKS, "missing"))
        faults = faulty_hooks(self._gunicorn.cfg)
        return sentence(faults) if faults else ""

    def _refuse(self, _env: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        detail = self.fault() or "This worker was never set up."
        problem = {"title": "Service Unavailable", "status": 503, "detail": detail}
        body = json.dumps(problem).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Retry-After", "1"),
        ]
        start_response("503 Service Unavailable", headers)
        return [body]


def _find_gunicorn() -> Any:
    """Return the application object of the gunicorn that loads this module, None without one."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is BaseApplication.wsgi.__code__:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


application = Entry(_find_gunicorn())
if application._gunicorn is not None and application.fault():
    log.error("%s", application.fault())


def configured() -> Any:
    """Return the application that gunicorn's configuration file names, else `application`.

    `benana serve` gives it to gunicorn, for files that name none: what the command line names
    goes before what a file says, and a middleware in a file would be lost otherwise.
    """
    named = application._gunicorn.cfg.wsgi_app
    return import_app(named) if named else application
