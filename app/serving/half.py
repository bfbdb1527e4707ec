"""The serving half of a process: rows become live routes."""

from collections.abc import Callable, Iterable

from app.conditions import Conditions
from app.database.pool import Database
from app.database.pools import plugin_share
from app.database.repository import Repository
from app.database.upkeep import Upkeep
from app.database.workers import WorkerRepository
from app.loading import garbage
from app.loading.callers import Surroundings
from app.loading.context import make_context_factory
from app.loading.loader import LoadedPlugin
from app.plugin import PluginMetadata
from app.routing.application import LiveApp
from app.serving.comparison import Comparison
from app.serving.crashes import CrashedLoads
from app.serving.exclusive.cluster_lock import ClusterLock
from app.serving.exclusive.plugins import ExclusivePlugins
from app.serving.fresh_processes import Replace
from app.serving.host_files import HostFiles
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import LivePlugins
from app.serving.load_marker import LoadMarker
from app.serving.load_queue import LoadQueue
from app.serving.reclaimer import Reclaimer
from app.serving.reconciler import Reconciler
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.serving.row_loader import RowLoader
from app.serving.takeover import come_to_serve
from app.settings import Settings
from app.threads import OwnThread
from app.worker_records import WorkerReport

STOP_SECONDS = 20.0
"""How long an ending worker waits for its last requests and cleanups; gunicorn kills it at 30 s."""

GIVE_WAY_SECONDS = 1.0
"""The same for one that ends because it holds what another one needs: its cleanup may hang."""


class ServingHalf:
    """Builds, starts and stops what loads and serves plugins in a process."""

    def __init__(
        self,
        settings: Settings,
        app: LiveApp,
        database: Database,
        plugin_database: Database,
        direct_url: str,
        conditions: Conditions,
        report: Callable[[], WorkerReport],
        look_again: Callable[[], None],
    ) -> None:
        """Build it; nothing is started and nothing connected.

        Args:
            settings: what the environment says.
            app: answers the requests.
            database: the pool of the server's own work.
            plugin_database: the pool that plugins borrow from.
            direct_url: where the database is, past a pooler.
            conditions: where it is held what is not as it should be.
            report: how this process is, as others are told.
            look_again: is called when all rows are to be compared, here and by who publishes.
        """
        folder = settings.artifacts_dir
        self._settings = settings
        self._workers = WorkerRepository(database)
        repository = Repository(database)
        self.files = HostFiles(folder, needed=settings.watch)
        """What of this host's disk cannot be written."""
        crashed = CrashedLoads(folder)
        last_known_good = LastKnownGood(folder, self.files, crashed.absolve)
        self.upkeep = Upkeep(database, conditions, look_again)
        """Whether the database tells of changes."""
        self.recorder = Recorder(
            self._workers, last_known_good, report, conditions, self.upkeep.seen
        )
        """Writes down what this process runs."""
        self.reclaimer = Reclaimer(
            app.running,
            settings.drain_seconds,
            conditions,
            lambda name: self._loading.loader.tidy(name),
        )
        """Cleans up what is no longer served."""
        self._regressions = Regressions(repository, last_known_good, settings.max_new_failures)
        app.on_failure = self._regressions.count
        self._marker = LoadMarker(folder, self.files, crashed.is_suspect)
        self._exclusive = ExclusivePlugins(
            folder,
            app,
            last_known_good,
            settings.handover_seconds,
            lambda name: ClusterLock(name, direct_url, self._workers),
            conditions,
            lambda name, again: self.reconciler.mark([name], again=again),
        )
        self._live = LivePlugins(app, self.reclaimer)
        loader = RowLoader(
            repository,
            make_context_factory(
                settings.data_dir, lambda name: plugin_share(plugin_database, name, settings)
            ),
            folder,
            self._marker,
            Surroundings(settings.known_hosts, settings.trusted_proxies),
            self.files,
            self._exclusive.load,
            max(1, settings.workers // 2),
        )
        self._loading = LoadQueue(
            loader,
            lambda name: self.mark([name]),
            lambda plugin: self._exclusive.gave_up(plugin) or self._live.retire([plugin]),
            self.reclaimer.expect_load,
        )
        self.comparison = Comparison(
            repository,
            self._live,
            self._loading,
            self.recorder,
            last_known_good,
            self.upkeep,
            self._regressions,
            self._exclusive,
            conditions,
        )
        """What a pass of the reconciler does."""
        self.reconciler = Reconciler(repository, self.comparison, self.upkeep, conditions)
        """Follows the rows."""

    @property
    def threads(self) -> tuple[OwnThread | LoadQueue, ...]:
        """What has threads of its own, that must not end."""
        return (self.reclaimer, self.recorder, self.reconciler, self._loading)

    def mark(self, names: Iterable[str] | None) -> None:
        """Look at the rows of some plugins again, at all with None; returns at once."""
        self.reconciler.mark(names)

    def start(
        self,
        still_alive: Callable[[], None],
        replace: Replace | None,
        *,
        relieves: bool,
    ) -> bool:
        """Start the threads and wait until everything registered is served.

        Args:
            still_alive: called about once a second while waiting.
            replace: asks for another process in the place of this one; None if nobody can be asked.
            relieves: whether it is to take the place of a process that serves.

        Returns:
            Whether it serves: not if it would serve less than others do.
        """
        if replace is not None:
            self.reclaimer.replace_process(replace, self._settings.max_leaked)
            self.comparison.fresh.ask_by(replace)
            self._regressions.replace = replace
            self._exclusive.giving_way.ask_by(replace)
        self._marker.record_faults()
        self.reclaimer.start()
        self.recorder.start()
        self.reconciler.start()
        garbage.pause("start")  # there is little, and each collection would look at everything
        try:
            if not come_to_serve(
                self.reconciler,
                self.comparison.fresh,
                self._workers,
                still_alive,
                relieves=relieves,
            ):
                return False
        finally:
            garbage.resume("start")
        self._marker.started()
        self.reclaimer.freeze()
        return True

    def drain(self) -> None:
        """Take over no exclusive plugin any more: this process only ends its requests."""
        self._exclusive.stop_candidacies()

    def drained(self) -> None:
        """Note that no more requests come: what rows say from now on is for others to serve.

        But what this process alone runs, it runs until its end.
        """
        if self._exclusive.owned():
            self.reconciler.narrow(self._exclusive.owned)
        else:
            self.reconciler.end()
        self.recorder.beat()

    def metadata_of(self, name: str) -> PluginMetadata | None:
        """Return what a plugin that runs here says of itself, None for any other."""
        plugin = self._live.find(name)
        return plugin.metadata if isinstance(plugin, LoadedPlugin) else None

    def stop(self) -> None:
        """Stop the threads and retire every plugin."""
        self._exclusive.end_all()
        self.reconciler.stop()
        self._live.unload_all()
        self._loading.close()
        seconds = GIVE_WAY_SECONDS if self._exclusive.giving_way.began else STOP_SECONDS
        self.reclaimer.stop(min(seconds, self._settings.drain_seconds))
        self._exclusive.close()  # once they have stopped: another process starts them now
        self.recorder.stop()
        self._marker.close()
