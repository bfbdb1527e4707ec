"""One exclusive plugin as one process has it: whether it runs here, and else where."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import falcon

from app.errors import LoadError, PluginError
from app.isolation.answering import FORWARDED, Application, ForwardServer
from app.isolation.board import Board, Word
from app.isolation.forwarding import Forwarder
from app.isolation.host_lock import HostLock
from app.isolation.runtime_folder import RuntimeFolder
from app.isolation.stand_in import StandIn, stand_in_for
from app.loading.loader import LoadedPlugin
from app.presence import own_presence
from app.records import Endpoint, ServedRow
from app.serving.cluster_lock import ClusterLock

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.02
"""How often is looked for what another process does: it tells of that in a file."""

DRAIN_SHARE = 0.4
"""The part of a hand-over's time that the requests of the old generation may take."""

FREE_SHARE = 0.4
"""The part that a new generation may wait for what others have to let go of."""


class Seat:
    """Whether this process runs an exclusive plugin, and how its requests are answered.

    The reconciler's thread says what is wanted, and what came of it; the loader's thread calls
    `load`; a thread of its own looks with `look` whether the lock is free, or lost; and threads
    that answer requests call `answer`.

    A generation is loaded only by who holds the lock, and only when the one before it has been
    cleaned up. Requests wait meanwhile, in whichever process they came.
    """

    def __init__(
        self,
        name: str,
        folder: RuntimeFolder,
        app: Application,
        answer_here: Callable[[Any, Any], None],
        wait_seconds: float,
        look_soon: Callable[[], None],
    ) -> None:
        """Make it; nothing is taken.

        Args:
            name: the plugin.
            folder: where the processes of this host meet.
            app: answers requests that other processes pass on.
            answer_here: answers a request in the table that is current now.
            wait_seconds: how long a request may wait for the plugin.
            look_soon: has `look` called soon.
        """
        self.name = name
        self.wait_seconds = wait_seconds
        self._app = app
        self._answer_here = answer_here
        self._look_soon = look_soon
        self._lock = HostLock(folder.lock(name))
        self.cluster_lock: ClusterLock | None = None
        """The lock of all hosts, taken after the host's; None for a plugin that each host runs."""
        self._board = Board(folder.board(name))
        self._socket = folder.socket(name)
        self._forwarder = Forwarder(name, self._socket)
        self._server: ForwardServer | None = None
        self._wake = threading.Condition()
        self._taking = threading.Lock()
        """Held while the locks are taken, which may take as long as a database."""
        self._loading = threading.Lock()
        """Held while the plugin is loaded: one load at a time."""
        self._wanted: ServedRow | None = None
        self._owner = False
        self._open = False
        """Whether the table of this process holds the plugin itself."""
        self._idle_because = ""
        """Why nothing of the plugin runs, though this process could run it."""
        self._ending = False
        self._leaving: list[threading.Event] = []
        """Set when generations that ran here have been cleaned up."""
        self._unclaimed: LoadedPlugin | None = None
        self._word: Word | None = None
        """What this process tells, or has heard last."""

    # --- what the reconciler says --------------------------------------------------------------

    @property
    def owns(self) -> bool:
        """Whether this process is the one that runs the plugin."""
        return self._owner

    @property
    def runs(self) -> bool:
        """Whether the plugin is served by this process itself."""
        return self._open

    @property
    def wanted(self) -> ServedRow | None:
        """What is to be served, None if nothing is."""
        return self._wanted

    def want(self, row: ServedRow) -> None:
        """Note what is to be served."""
        with self._wake:
            self._wanted = row
            self._idle_because = ""
            self._wake.notify_all()

    def shut(self) -> None:
        """Let requests wait: the plugin is about to leave the table."""
        with self._wake:
            self._open = False

    def leave(self, ends: Iterable[threading.Event]) -> None:
        """Note generations that ran here and are being cleaned up; each sets its event."""
        with self._wake:
            self._leaving = [end for end in [*self._leaving, *ends] if not end.is_set()]

    def claim(self, plugin: object) -> None:
        """Note that the reconciler has what was loaded: it retires it one day."""
        with self._wake:
            if self._unclaimed is plugin:
                self._unclaimed = None

    def opened(
        self, plugin: LoadedPlugin, went_back_from: tuple[int, PluginError] | None = None
    ) -> PluginError | None:
        """Note that the table holds a generation, and take the others' requests.

        Args:
            plugin: the generation.
            went_back_from: the newer one that could not be loaded, and why.

        Returns:
            Why they cannot be taken, None if all is well.
        """
        served = tuple(endpoint for route in plugin.routes for endpoint in route.endpoints)
        self._word = Word(
            **_who(),
            id=plugin.row_id,
            generation=plugin.generation,
            endpoints=served,
            failed=None if went_back_from is None else went_back_from[0],
            error=None if went_back_from is None else went_back_from[1].as_record(),
        )
        error = None
        try:
            if self._server is None:
                server = ForwardServer(self.name, self._socket, self._app)
                server.start()
                self._server = server
            self._board.write(self._word)
        except OSError as fault:
            error = LoadError(
                self.name,
                f"the other processes of this host cannot reach it: {self._socket}: "
                f"{fault.strerror}",
                outside=True,
            )
        with self._wake:
            self._open, self._idle_because = True, ""
            self._wake.notify_all()
        return error

    def failed(self, row: ServedRow, error: PluginError, *, runs: bool, goes_back: bool) -> None:
        """Note that a generation could not be loaded, and tell the others.

        Args:
            row: what was to be loaded.
            error: why it could not.
            runs: whether another generation runs here.
            goes_back: whether the one before it is loaded next.
        """
        if not self._owner:
            return
        before = self._word if runs else None
        self._word = Word(
            **_who(),
            id=row.id,
            generation=before.generation if before else None,
            endpoints=before.endpoints if before else (),
            failed=row.generation,
            error=error.as_record(),
        )
        with self._wake:
            if not (runs or goes_back):
                self._idle_because = str(error)
            self._wake.notify_all()
        self._tell()

    def unwanted(self, ends: Iterable[threading.Event] = ()) -> None:
        """Note that nothing of the plugin is to run exclusively any more."""
        self.leave(ends)
        with self._wake:
            self._wanted, self._open = None, False
            self._wake.notify_all()
        self._look_soon()

    def end(self) -> None:
        """Take nothing any more, and no requests: this process ends."""
        with self._wake:
            self._ending = True
        if self._server is not None:
            self._server.close()

    def release(self) -> None:
        """Give the plugin away to who takes it first; it does not run here any more."""
        with self._wake:
            was_owner, self._owner, self._open = self._owner, False, False
            self._wake.notify_all()
        if self._server is not None:
            self._server.close()
            self._server = None
        if was_owner and self._lock.is_held():
            self._board.clear()
        if self.cluster_lock is not None:
            self.cluster_lock.release()
        self._lock.release()
        self._word = None

    def close(self) -> None:
        """Give back all that it has; for the end of the process."""
        self.release()
        self._forwarder.close()

    # --- the thread that looks -----------------------------------------------------------------

    def stop_candidacy(self) -> None:
        """Take the plugin over no more: this process only ends its requests."""
        self._ending = True

    def look(self) -> bool:
        """Look whether the lock is free, or lost; return whether the reconciler has to act."""
        if self._wanted is None:
            if self._owner and self._has_left():
                self.release()
            return False
        if self._owner:
            if self._holds_locks():
                return False
            log.error("%s: its lock is lost; it stops, and runs where the lock is taken", self.name)
            with self._wake:
                self._owner = False
            if self._server is not None:
                self._server.close()
                self._server = None
            return True
        if self._open or not self._has_left():
            return self._open  # it has to stop first
        self._clear_former()
        if self._take():
            log.info("%s: it runs in this process from now on", self.name)
            return True
        word = self._board.read()
        heard, self._word = self._word, word
        return word is not None and word != heard

    def _clear_former(self) -> None:
        """Tell the others that this process has stopped, once it has, without the lock."""
        word = self._board.read()
        if word is not None and word.here and word.pid == os.getpid():
            self._board.clear()

    def hears(self, row: ServedRow) -> bool:
        """Tell whether the process that runs the plugin has said that it serves a row."""
        return self._word is not None and self._word.serves(row)

    @property
    def served_generation(self) -> int | None:
        """What is served of the plugin, here or elsewhere, as far as it is known."""
        return None if self._word is None else self._word.generation

    @property
    def is_over(self) -> bool:
        """Whether nothing is wanted, nothing runs and nothing is held."""
        return self._wanted is None and not self._owner and self._has_left()

    def _has_left(self) -> bool:
        with self._wake:
            self._leaving = [end for end in self._leaving if not end.is_set()]
            return not self._leaving

    def _holds_locks(self) -> bool:
        return self._lock.is_held() and (self.cluster_lock is None or self.cluster_lock.is_held())

    def _take(self) -> bool:
        """Become the owner if nobody is; return whether this process is it now."""
        with self._taking:
            if self._owner:
                return True
            if self._ending or self._wanted is None:
                return False
            try:
                if not self._lock.take():
                    return False
            except OSError as error:
                raise LoadError(
                    self.name,
                    f"it cannot be known which process runs it: {error.filename}: "
                    f"{error.strerror}; make room in that folder, or make it writable",
                    outside=True,
                ) from None
            if self.cluster_lock is not None and not self.cluster_lock.take():
                word = self.cluster_lock.owner()
                if word is not None and word != self._word:
                    self._word = word
                    self._tell()
                return False
            with self._wake:
                self._owner = True
                self._wake.notify_all()
            return True

    def _tell(self) -> None:
        try:
            if self._word is not None:
                self._board.write(self._word)
        except OSError as error:
            log.warning("%s: the other processes do not hear of it: %s", self.name, error)

    # --- the loader's thread -------------------------------------------------------------------

    def load(self, row: ServedRow, load: Callable[[ServedRow], LoadedPlugin]) -> Any:
        """Load a row if this process is to run it, else wait until the one that does serves it.

        Args:
            row: what to load.
            load: loads it, as for any plugin.

        Returns:
            The plugin, or who passes its requests on.

        Raises:
            PluginError: it cannot be loaded, here or in the process that is to run it.
        """
        with self._loading:
            self._drop_unclaimed()
            found = self._wait_for_turn(row)
            if found is not None:
                return found
            self._wait_for_former()
            plugin = self._load_when_free(row, load)
            with self._wake:
                self._unclaimed = plugin
            return plugin

    def _wait_for_turn(self, row: ServedRow) -> StandIn | None:
        """Wait to become the owner (None), or for the owner to serve a row."""
        while self._wanted == row:
            if self._take():
                return None
            word = self._board.read() or (None if self.cluster_lock is None else self._word)
            if word is not None and word.serves(row):
                self._word = word
                known = [Endpoint(*parts) for parts in row.endpoints or ()]
                return self.stand_in(row.id, row.generation, word.endpoints or known)
            error = None if word is None else word.failed_with(row)
            if error is not None:
                self._word = word
                raise LoadError(self.name, **error)
            time.sleep(LOOK_SECONDS)
        raise LoadError(self.name, "something else is to be loaded by now", transient=True)

    def _wait_for_former(self) -> None:
        """Wait until the one before has stopped, here and in another process of this host."""
        deadline = time.monotonic() + self.wait_seconds
        while time.monotonic() < deadline:
            word = self._board.read()
            elsewhere = word is not None and word.here and word.pid != os.getpid()
            if not elsewhere and self._has_left():
                return
            with self._wake:
                leaving = next(iter(self._leaving), None)
            if leaving is None:
                time.sleep(LOOK_SECONDS)
            else:
                leaving.wait(min(LOOK_SECONDS, deadline - time.monotonic()))
        log.warning(
            "%s: the generation before did not stop within %g s; the next one is loaded anyway",
            self.name,
            self.wait_seconds,
        )
        with self._wake:
            self._leaving.clear()

    def _load_when_free(
        self, row: ServedRow, load: Callable[[ServedRow], LoadedPlugin]
    ) -> LoadedPlugin:
        """Load a row; what is in use may be let go of in a moment, by a process that stops."""
        deadline = time.monotonic() + FREE_SHARE * self.wait_seconds
        while True:
            try:
                return load(row)
            except LoadError as error:
                if not error.in_use or time.monotonic() > deadline or self._wanted != row:
                    raise
            time.sleep(LOOK_SECONDS)

    def _drop_unclaimed(self) -> None:
        with self._wake:
            plugin, self._unclaimed = self._unclaimed, None
        if plugin is not None:
            plugin.dispose()  # it was loaded for nobody, and no table has had it

    def give_up(self, plugin: object) -> bool:
        """Clean up what was loaded and is not wanted; return whether it is this one's to do."""
        with self._wake:
            if self._unclaimed is not plugin:
                return not isinstance(plugin, LoadedPlugin)
        self._drop_unclaimed()
        return True

    # --- requests ------------------------------------------------------------------------------

    def stand_in(self, row_id: str, generation: int, endpoints: Iterable[Endpoint]) -> StandIn:
        """Return what stands in the table for the plugin where it does not run."""
        return stand_in_for(row_id, self.name, generation, tuple(endpoints), self.answer)

    def answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a request wherever the plugin runs; wait for it while it moves.

        Raises:
            falcon.HTTPServiceUnavailable: it runs nowhere, or did not come within the time.
            falcon.HTTPBadGateway: the process that runs it ended while it answered.
        """
        forwarded = req.env.get(FORWARDED)
        wait = self.wait_seconds if forwarded is None else forwarded.wait
        deadline = time.monotonic() + wait
        while True:
            left = deadline - time.monotonic()
            with self._wake:
                if self._is_coming():
                    self._wake.wait_for(lambda: not self._is_coming(), max(0.0, left))
                here, owner = self._open or self._wanted is None, self._owner
            left = deadline - time.monotonic()
            if here:
                self._answer_here(req, resp)
                return
            if owner:
                raise self._unavailable(self._idle_because)
            if forwarded is not None:
                forwarded.refused = True
                return
            if self._forwarder.forward(req, resp, max(0.0, left)):
                return
            if left <= 0:
                raise self._unavailable("")
            word = self._board.read()
            if word is not None:
                self._refuse_at_once(word)
            self._look_soon()
            with self._wake:
                self._wake.wait(min(LOOK_SECONDS, left))

    def _is_coming(self) -> bool:
        return self._owner and not (self._open or self._idle_because or self._wanted is None)

    def _refuse_at_once(self, word: Word) -> None:
        """Raise where it is known that waiting is of no use."""
        if not word.here:
            raise self._unavailable(
                f"it runs on one host of all, and that is {word.host} (pid {word.pid}); ask there"
            )
        wanted = self._wanted
        if word.generation is None and wanted is not None:
            error = word.failed_with(wanted)
            if error is not None:
                raise self._unavailable(f"{error['phase']} failed: {error['message']}")

    def _unavailable(self, reason: str) -> falcon.HTTPServiceUnavailable:
        return falcon.HTTPServiceUnavailable(
            title="Service Unavailable",
            description=f"The plugin {self.name!r} runs in one process at a time, and now in none "
            f"that can be reached: {reason or self._waiting()}",
            retry_after=1,
        )

    def _waiting(self) -> str:
        row, word = self._wanted, self._board.read()
        what = "it" if row is None else f"its generation {row.generation}"
        if word is None:
            return f"no process has come to run {what} within {self.wait_seconds:g} s."
        return f"{what} did not come within {self.wait_seconds:g} s (pid {word.pid} is to run it)."

    @property
    def elsewhere(self) -> Word | None:
        """The process of another host that runs the plugin, None if it runs on this one."""
        if self.cluster_lock is None or self._owner:
            return None
        word = self._board.read()
        return word if word is not None and not word.here else None


def _who() -> dict[str, Any]:
    presence = own_presence()
    return {
        "host": socket.gethostname(),
        "pid": presence.pid,
        "machine": presence.machine,
        "started": presence.started,
    }
