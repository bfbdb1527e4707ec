"""The plugin manager builds the two halves, starts and stops them, and answers the admin side."""

import logging
from collections.abc import Callable
from pathlib import Path

from app.conditions import Conditions
from app.database import inherited
from app.database.events import ChangeListener
from app.database.pools import plugin_pool, server_pool
from app.database.repository import Repository
from app.database.workers import WorkerRepository
from app.errors import BenanaError, DatabaseError, UnknownPluginError
from app.files import place_of
from app.fleet import ADMIN_SHARE_SECONDS, Fleet
from app.health import Health, HealthReport
from app.isolation import own_sockets
from app.package.finder import generations_alive
from app.plugin import PluginMetadata
from app.postgres.server import EmbeddedPostgres
from app.publishing.publisher import Publisher
from app.publishing.refusals import Refusals
from app.publishing.trials.trial import TrialRunner
from app.publishing.watcher import SourceWatcher
from app.records import ServedRow
from app.reload import ReloadResult, reload_plugin
from app.routing.application import LiveApp
from app.routing.forked_requests import end_request
from app.serving.fresh_processes import Replace
from app.serving.half import ServingHalf
from app.settings import Settings
from app.worker_records import WorkerReport

log = logging.getLogger(__name__)


def database_url_of(settings: Settings) -> str:
    """Return where the database is: what the environment says, else the embedded one."""
    return settings.database_url or EmbeddedPostgres(settings.data_dir).uri


class PluginManager:
    """One process's publishing and serving halves."""

    def __init__(self, settings: Settings, app: LiveApp) -> None:
        """Build both halves; nothing is started and nothing connected.

        Raises:
            SettingsError: the database's URL cannot be read.
        """
        url = database_url_of(settings)
        self._settings = settings
        self._conditions = Conditions()
        self._host_conditions = Conditions()
        """What the publishing half holds: the host's, if it is this process that publishes."""
        self._running = app.running
        self._database = server_pool(url, settings, self._conditions, app.running.is_short)
        self._plugin_database = plugin_pool(url, settings, app.running.is_short)
        self._repository = Repository(self._database)
        admin = self._database.share(
            "the admin API", max(1, settings.threads // 2), timeout=ADMIN_SHARE_SECONDS
        )
        self.rows = Repository(admin)
        """The rows, as the admin side reads them."""
        self._trial = TrialRunner(
            url,
            plugins_dir=settings.plugins_dir,
            memory_mb=settings.trial_memory_mb,
            artifacts_dir=settings.artifacts_dir,
        )
        self._publisher = Publisher(
            settings.plugins_dir,
            settings.artifacts_dir,
            self._repository,
            self._trial,
            Refusals(self._host_conditions),
            settings.max_source_mb,
            self._host_conditions,
        )
        self._watcher = SourceWatcher(
            settings.plugins_dir,
            settings.artifacts_dir,
            self._publisher,
            self._host_conditions,
            lambda: self._running.crew,
        )
        self._serving = ServingHalf(
            settings,
            app,
            self._database,
            self._plugin_database,
            settings.listen_database_url or url,
            self._conditions,
            self._report,
            lambda: self._changed(None),
        )
        self.fleet = Fleet(
            WorkerRepository(admin),
            lambda: self._serving.recorder.id if self._health.takes_requests else None,
            lambda: self._running.crew,
        )
        """The processes of all hosts, as the admin side asks for them."""
        self._listener = ChangeListener(
            settings.listen_database_url or url,
            self._changed,
            settings.heartbeat_seconds,
            self._conditions,
            lambda: self._serving.upkeep.schema,
            rows_url=url,
        )
        self._health = Health(
            self._conditions,
            self._serving.reconciler,
            self._watcher.election if settings.watch else None,
            self._serving.recorder.beat,
        )
        self._own_threads = (
            *self._serving.threads,
            self._listener,
            self._watcher,
            self._health,
        )

    # --- life ------------------------------------------------------------------------------

    def publish_at_start(self) -> None:
        """Apply the schema and publish what changed while the server was down.

        For the one process of a host that starts the others; it closes what it opened. Nothing
        here raises: with the database away or the folder gone, the workers serve what they can,
        and the one that watches makes up for it.
        """
        self._serving.files.say_what_is_gone_without(self._settings.data_dir)
        try:
            if self._settings.watch:
                self._publisher.scan(at_start=True)
            else:
                self._repository.apply_schema()
        except DatabaseError as error:
            log.error("%s; starting without it, and trying again", error)
        except OSError as error:
            log.error(
                "nothing is published or unregistered: %s: %s",
                place_of(error, self._settings.plugins_dir, "the plugins' root"),
                error.strerror,
            )
        finally:
            self._trial.close()
            self._database.close()

    def start(
        self,
        still_alive: Callable[[], None],
        replace: Replace | None = None,
        *,
        relieves: bool = False,
    ) -> bool:
        """Start this process's threads and wait until everything registered is served.

        Args:
            still_alive: called about once a second while waiting.
            replace: asks for another process in the place of this one, as once it cannot get rid
                of what it has loaded; None if nobody can be asked.
            relieves: whether it is to take the place of a process that serves.

        Returns:
            Whether it serves: not if it would serve less than others do.
        """

        def look() -> None:
            if ended := self.ended_threads():
                raise BenanaError(f"{', '.join(ended)} ended while the plugins were loaded")
            still_alive()

        if not self._serving.start(look, replace, relieves=relieves):
            return False
        self._listener.start()
        self._publisher.rehearsals.start()
        if self._settings.watch:
            self._watcher.start()
        self._health.started = True
        self._health.start()
        return True

    def drained(self) -> None:
        """Note that no more requests come: what rows say from now on is for others to serve."""
        self._health.draining = True
        self._serving.drained()

    def drain(self) -> None:
        """Leave the publishing to another process of the host: this one only ends its requests.

        Streams of events are ended: their clients come again, to another process.
        """
        self._serving.drain()
        self._watcher.end()
        self._running.finish_streams()

    def stop(self) -> None:
        """Stop the threads, retire every plugin, and close what was opened."""
        self._health.stop()
        self._watcher.stop()
        self._trial.stop()  # a publish that goes on waiting for one gives up
        self._publisher.rehearsals.stop()
        self._listener.stop()
        self._serving.stop()
        self._plugin_database.close()
        self._database.close()

    def ended_threads(self) -> list[str]:
        """Return which of this process's own threads have ended, though nobody told them to."""
        return [name for part in self._own_threads if (name := part.ended_thread)]

    def let_go(self) -> None:
        """Let go, in a forked child, of sessions, sockets and requests: they are the parent's."""
        end_request(self._running)
        inherited.let_go()
        own_sockets.let_go()
        self._database.let_go()
        self._plugin_database.let_go()

    def _changed(self, names: frozenset[str] | None) -> None:
        self._serving.mark(names)
        self._watcher.rows_changed(names)

    # --- what the admin side calls -----------------------------------------------------------

    def reload(self, name: str) -> ReloadResult:
        """Compile, try and publish a plugin again; without its folder, load its archive again.

        Raises:
            UnknownPluginError: there is neither a row nor a folder.
            PluginError: the source cannot be published; the old version serves on. Or there is
                neither a folder nor an archive.
        """
        return reload_plugin(name, self._settings.plugins_dir, self._publisher, self.rows)

    def folder_of(self, name: str) -> Path | None:
        """Return the folder of the plugins' root that has a plugin's name, None if there is none.

        Args:
            name: a valid name.
        """
        folder = self._settings.plugins_dir / name
        return folder if folder.is_dir() else None

    def metadata_of(self, name: str) -> PluginMetadata | None:
        """Return what a plugin that this process runs says of itself, None for any other."""
        return self._serving.metadata_of(name)

    def toggle(self, name: str) -> ServedRow:
        """Turn a plugin off or on and return what is to be served now.

        Raises:
            UnknownPluginError: there is no such row.
        """
        row = self.rows.toggle(name)
        if row is None:
            raise UnknownPluginError(name)
        return row

    @property
    def health(self) -> HealthReport:
        """How this process is, judged from its memory alone."""
        return self._health.report()

    def _report(self) -> WorkerReport:
        health = self._health.report()
        return WorkerReport(generations_alive(), health.status, health.reasons, self._running.crew)
