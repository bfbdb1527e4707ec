"""One exclusive plugin as one process has it: whether it runs here, and who runs it else."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from app.errors import LoadError, PluginError, SettingsError
from app.isolation.board import Board, Word
from app.isolation.forwarding import Forwarder
from app.isolation.host_lock import HostLock
from app.isolation.runtime_folder import RuntimeFolder
from app.isolation.stand_in import StandIn, stand_in_for
from app.loading.loader import LoadedPlugin
from app.records import Endpoint, ServedRow
from app.routing.application import LiveApp
from app.serving.exclusive.announcer import Announcer
from app.serving.exclusive.cluster_lock import ClusterLock
from app.serving.exclusive.door import LOOK_SECONDS, Door
from app.serving.exclusive.hand_over import HandOver

log = logging.getLogger(__name__)


class Seat:
    """Whether this process runs an exclusive plugin, and what it tells, or hears, of that.

    The reconciler's thread says what is wanted, and what came of it; the loader's thread calls
    `load`; a thread of its own looks with `look` whether the lock is free, or lost. A generation is
    loaded only by who holds the lock, and only when the one before it has been cleaned up.
    """

    def __init__(
        self,
        name: str,
        folder: RuntimeFolder,
        app: LiveApp,
        wait_seconds: float,
        look_soon: Callable[[], None],
    ) -> None:
        """Make it; nothing is taken.

        Args:
            name: the plugin.
            folder: where the processes of this host meet.
            app: answers requests, those that other processes pass on, too.
            wait_seconds: how long a request may wait for the plugin.
            look_soon: has `look` called soon.
        """
        self.name = name
        self._look_soon = look_soon
        self._folder = folder
        self._lock = HostLock(folder.lock(name))
        self.cluster_lock: ClusterLock | None = None
        """The lock of all hosts, taken after the host's; None for a plugin that each host runs."""
        self._board = Board(folder.board(name))
        self._forwarder = Forwarder(name, folder.socket(name))
        self._door = Door(name, self._forwarder, self._board, wait_seconds, look_soon)
        self.hand_over = HandOver(name, self._board, wait_seconds)
        """The loads of this process, and what still leaves."""
        self._announcer = Announcer(name, folder.socket(name), self._board, app, app.running.leave)
        self._taking = threading.Lock()
        """Held while the locks are taken, which may take as long as a database."""
        self._ending = False
        self.has_run = False
        """Whether a generation of it was served by this process."""
        self.last: ServedRow | None = None
        """What the table of this process had last, of itself or of another one."""

    # --- what the reconciler asks and says -----------------------------------------------------

    @property
    def owns(self) -> bool:
        """Whether this process is the one that runs the plugin."""
        return self._door.owner

    @property
    def runs(self) -> bool:
        """Whether the plugin is served by this process itself."""
        return self._door.is_open

    @property
    def wanted(self) -> ServedRow | None:
        """What is to be served, None if nothing is."""
        return self._door.wanted

    def hears(self, row: ServedRow) -> bool:
        """Tell whether the process that runs the plugin has said that it serves a row."""
        return self._announcer.word is not None and self._announcer.word.serves(row)

    @property
    def served_generation(self) -> int | None:
        """What is served of the plugin, here or elsewhere, as far as it is known."""
        return None if self._announcer.word is None else self._announcer.word.generation

    @property
    def elsewhere(self) -> Word | None:
        """The process of another host that runs the plugin, None if it runs on this one."""
        if self.cluster_lock is None or self.owns or self.wanted is None:
            return None
        word = self._board.read()
        return word if word is not None and not word.here else None

    def want(self, row: ServedRow) -> None:
        """Note what is to be served."""
        again = row == self.wanted
        because = self._door.gives_way_because if again else ""  # else this process may run it
        self._door.set(wanted=row, idle_because="", gives_way_because=because)

    def shut(self) -> None:
        """Let requests wait: the plugin is about to leave the table."""
        self._door.set(is_open=False)

    def stand_in(self, row_id: str, generation: int, endpoints: Iterable[Endpoint]) -> StandIn:
        """Return what stands in the table for the plugin where it does not run."""
        return stand_in_for(row_id, self.name, generation, tuple(endpoints), self._door.answer)

    def opened(
        self, plugin: LoadedPlugin, went_back_from: tuple[ServedRow, PluginError] | None = None
    ) -> PluginError | None:
        """Note that the table holds a generation, and let requests in; see `Announcer.serves`."""
        self.has_run = True
        error = self._announcer.serves(plugin, went_back_from)
        self._door.set(is_open=True, idle_because="", gives_way_because="")
        return error

    def failed(self, row: ServedRow, error: PluginError, *, comes: bool, here: bool) -> None:
        """Note that a generation could not be loaded, so that nothing runs; tell the others.

        Args:
            row: what was to be loaded.
            error: why it could not.
            comes: whether something is loaded next, the one before it or elsewhere; requests wait
                for that.
            here: whether it is loaded here, and not in another process once this one has ended.
        """
        if self.owns:
            self._announcer.failed(row, error, goes_back=comes, leaves=comes and not here)
            if not comes:
                self._door.set(idle_because=str(error))
            elif not here:
                self._door.set(gives_way_because=str(error))

    def unwanted(self) -> None:
        """Note that nothing of the plugin is to run exclusively any more."""
        self._door.set(wanted=None, is_open=False)
        self._look_soon()

    # --- the locks -----------------------------------------------------------------------------

    def look(self) -> bool:
        """Look whether the lock is free, or lost; return whether the reconciler has to act.

        Raises:
            PluginError: it cannot be known who runs the plugin.
        """
        if self.wanted is None:
            if (self.owns or self._lock.is_held()) and self.hand_over.has_left():
                self.release()
            return False
        if self.owns:
            if self._holds_locks():
                return False
            log.error("%s: its lock is lost; it stops, and runs where the lock is taken", self.name)
            self._door.set(owner=False)
            self._announcer.close()
            self._announcer.word = None
            return True
        if self.runs or not self.hand_over.has_left():
            return self.runs  # it has to stop first
        self._announcer.say_that_it_stopped()
        if self._take():
            log.info("%s: it runs in this process from now on", self.name)
            return True
        heard, self._announcer.word = self._announcer.word, self._board.read()
        return self._announcer.word is not None and self._announcer.word != heard

    def stop_candidacy(self) -> None:
        """Take the plugin over no more: this process only ends its requests."""
        self._ending = True
        self._door.set(is_ending=True)

    def end(self) -> None:
        """Take nothing any more, and no requests: this process ends."""
        self._ending = True
        self._announcer.close()

    def release(self) -> None:
        """Give the plugin away to who takes it first; it does not run here any more."""
        self._door.set(owner=False, is_open=False)
        self._announcer.close()
        if self._lock.is_held():
            self._board.clear()
        if self.cluster_lock is not None:
            self.cluster_lock.release()
        self._lock.release()
        self._announcer.word = None

    def close(self) -> None:
        """Give back all that it has; for the end of the process."""
        self.release()
        self._forwarder.close()

    def _holds_locks(self) -> bool:
        return self._lock.is_held() and (self.cluster_lock is None or self.cluster_lock.is_held())

    def _take(self) -> bool:
        """Become the owner if nobody is; return whether this process is it now."""
        with self._taking:
            if self.owns and self._holds_locks():
                return True
            self._door.set(owner=False)
            if self._ending or self.wanted is None:
                return False
            try:
                self._folder.make()
                if not self._lock.take():
                    return False
            except (OSError, SettingsError) as error:
                raise LoadError(
                    self.name, f"it cannot be known which process runs it: {error}", outside=True
                ) from None
            if self.cluster_lock is not None and not self.cluster_lock.take():
                self._tell_of(self.cluster_lock.owner())
                return False
            self._door.set(owner=True)
            return True

    def _tell_of(self, word: Word | None) -> None:
        """Tell this host's processes who runs the plugin on another one."""
        if word is None:
            self._board.clear()  # it may be of a former time
        elif word != self._board.read():
            self._announcer.tell(word)

    # --- the loader's thread -------------------------------------------------------------------

    def load(
        self, row: ServedRow, load: Callable[[ServedRow], LoadedPlugin]
    ) -> LoadedPlugin | StandIn:
        """Load a row if this process is to run it, else wait until the one that does serves it.

        Args:
            row: what to load.
            load: loads it, as for any plugin.

        Returns:
            The plugin, or who passes its requests on.

        Raises:
            PluginError: it cannot be loaded, here or in the process that is to run it.
        """
        with self.hand_over.turn:
            self.hand_over.drop_unclaimed()
            return self._wait_for_owner(row) or self.hand_over.load(
                row, load, lambda: self.wanted == row
            )

    def _wait_for_owner(self, row: ServedRow) -> StandIn | None:
        """Wait to become the owner (None), or for the owner to serve a row."""
        while self.wanted == row:
            if self._take():
                return None
            word = self._board.read()
            if word is not None and word.here and word.pid == os.getpid():
                word = None  # its own, from before it lost the lock
            if word is not None and word.serves(row):
                self._announcer.word = word
                known = [Endpoint(*parts) for parts in row.endpoints or ()]
                return self.stand_in(row.id, row.generation, word.endpoints or known)
            error = None if word is None else word.failed_with(row)
            if error is not None:
                self._announcer.word = word
                raise LoadError(self.name, **error)
            if word is not None and word.leaves:
                text = f"it comes once the worker that is in the way has ended (pid {word.pid})"
                raise LoadError(self.name, text)  # when its lock is free, it is tried again
            time.sleep(LOOK_SECONDS)
        raise LoadError(self.name, "something else is to be loaded by now", transient=True)
