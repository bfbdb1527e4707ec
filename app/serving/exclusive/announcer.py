"""What the process that runs an exclusive plugin tells the others, and where it hears them."""

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import LoadError, PluginError
from app.isolation.answering import Application, ForwardServer
from app.isolation.board import Board, Word
from app.loading.loader import LoadedPlugin
from app.presence import own_presence
from app.records import ServedRow

log = logging.getLogger(__name__)


class Announcer:
    """Tells of a plugin and takes its requests; only for who holds the plugin's lock.

    `word` is what this process has told, or heard last.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        board: Board,
        app: Application,
        on_end: Callable[[], None],
    ) -> None:
        """Make it.

        Args:
            name: the plugin.
            path: the socket at which requests are taken.
            board: where is told.
            app: answers the requests.
            on_end: is called by each thread that has answered requests, at its end.
        """
        self._on_end = on_end
        self._name = name
        self._path = path
        self._board = board
        self._app = app
        self._server: ForwardServer | None = None
        self.word: Word | None = None

    def serves(
        self, plugin: LoadedPlugin, went_back_from: tuple[ServedRow, PluginError] | None
    ) -> PluginError | None:
        """Tell that a generation is served, and take the others' requests.

        Args:
            plugin: the generation.
            went_back_from: the newer one that could not be loaded, and why.

        Returns:
            Why they cannot be taken, None if all is well.
        """
        failed, why = went_back_from or (None, None)
        self.word = _own_word(
            id=plugin.row_id,
            generation=plugin.generation,
            endpoints=tuple(endpoint for route in plugin.routes for endpoint in route.endpoints),
            failed=None if failed is None else failed.generation,
            error=None if why is None else why.as_record(),
        )
        try:
            if self._server is None:
                server = ForwardServer(self._name, self._path, self._app, self._on_end)
                server.start()
                self._server = server
            self._board.write(self.word)
        except OSError as fault:
            return LoadError(
                self._name,
                f"the other processes of this host cannot reach it: {self._path}: {fault.strerror}",
                outside=True,
            )
        return None

    def failed(self, row: ServedRow, error: PluginError, *, goes_back: bool, leaves: bool) -> None:
        """Tell that a generation could not be loaded, and that nothing is served.

        Args:
            row: what was to be loaded.
            error: why it could not.
            goes_back: whether something is loaded next, here or elsewhere.
            leaves: whether this process is about to end for that.
        """
        of, why = {"id": row.id, "failed": row.generation}, error.as_record()
        self.tell(_own_word(**of, error=why, goes_back=goes_back, leaves=leaves))

    def tell(self, word: Word) -> None:
        """Tell something, of this process or of one of another host."""
        self.word = word
        try:
            self._board.write(word)
        except OSError as error:
            log.warning("%s: the other processes do not hear of it: %s", self._name, error)

    def say_that_it_stopped(self) -> None:
        """Tell nothing more of this process, which does not run the plugin any more."""
        word = self._board.read()
        if word is not None and word.here and word.pid == os.getpid():
            self._board.clear()

    def close(self) -> None:
        """Take no more requests."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


def _own_word(**what: Any) -> Word:
    presence = own_presence()
    host, machine = socket.gethostname(), presence.machine
    return Word(host=host, pid=presence.pid, machine=machine, started=presence.started, **what)
