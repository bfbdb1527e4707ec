"""gunicorn's hooks: the master publishes what changed, each worker serves what is registered.

One line of gunicorn's configuration file, whichever it is, brings them in: `from app.hooks import
*`. It sets the worker class and the hooks, and nothing else. What the master has to keep is kept in
this module: HUP runs the configuration file again, and not the module.
"""

import gc
import logging
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Never

from app import logs
from app.database.urls import parse_url
from app.descendants import end_descendants
from app.errors import BenanaError, SettingsError
from app.listeners import address_of, url_of
from app.loading.exit_functions import exit_functions
from app.loading.load_process import prepare_process
from app.postgres.server import EmbeddedPostgres
from app.server import create_app
from app.serving.crashes import CrashedLoads
from app.settings import Settings
from app.workers.addresses import refuse_busy_port, refuse_own_queues
from app.workers.arbiter import Arbiter
from app.workers.bounded_end import bound_the_end
from app.workers.children import become_parent
from app.workers.first_start import make_first_root, root_text
from app.workers.hook_check import HOOKS, faulty_hooks, sentence
from app.workers.identity import differs, run_apart, user_text
from app.workers.open_files import hold_standard_files, make_room
from app.workers.orphans import Orphans
from app.workers.self_watch import SelfWatch
from app.workers.writable import make_folders, unusable_place

__all__ = ["worker_class", *HOOKS]

log = logging.getLogger("benana")

worker_class = "app.workers.worker.Worker"  # gunicorn's "gthread", and what its master shows of it

MAX_THREADS = 1024


@dataclass
class _Master:
    """What the master of this process has begun, for its life."""

    begun: bool = False
    postgres: EmbeddedPostgres | None = None
    published: Path | None = None
    """The plugins' root that was published last."""
    folder: Path | None = None
    """Where it was started."""


_master = _Master()

# The folders that the master has begun with: the current folder may be another release at HUP.
_folders: dict[str, str] = {}


def read_settings(configuration: Any = None) -> Settings:
    """Read the environment, and what gunicorn's command line and configuration say otherwise.

    Args:
        configuration: gunicorn's settings, None where they are not known yet.

    Raises:
        SettingsError: a variable holds what cannot be used.
    """
    environ = {**os.environ, **_folders}
    if configuration is not None:
        environ["FORWARDED_ALLOW_IPS"] = ",".join(configuration.forwarded_allow_ips)
        environ["BENANA_THREADS"] = str(min(configuration.threads, MAX_THREADS))
    settings = Settings.from_environment(environ)
    for variable, url in (
        ("DATABASE_URL", settings.database_url),
        ("BENANA_LISTEN_DATABASE_URL", settings.listen_database_url),
    ):
        if url:
            parse_url(url, variable)
    if configuration is None:
        return settings
    names = {address[0] for address in configuration.address if isinstance(address, tuple)}
    return replace(settings, admin_hosts=settings.admin_hosts | names)


# --- in the master -------------------------------------------------------------------------


def on_starting(server: Any) -> None:
    """Start the database, publish what changed; the port opens afterwards."""
    hold_standard_files()
    logs.follow_gunicorn(server.cfg)
    try:
        refuse_own_queues(server.cfg)
        refuse_busy_port(server.cfg)
        make_room(server.cfg)
        _begin(server)
    except BenanaError as error:
        _end(server.cfg, str(error))


def on_reload(server: Any) -> None:
    """Follow the configuration that HUP has read, and a plugins' root that is another one now."""
    logs.follow_gunicorn(server.cfg)
    server.cfg.set("reuse_port", False)  # as at the start, and there it is said
    make_room(server.cfg)
    try:
        if not _master.begun:
            _begin(server)  # the file has had no `on_starting` of ours before
            return
        settings = read_settings(server.cfg)
        if settings.plugins_dir != _master.published:
            server.end_former()  # who watches the former root would publish it again
            _warn_of_folders(settings)
            _publish(server.cfg, settings)
    except BenanaError as error:
        log.critical("%s", error)


def when_ready(server: Any) -> None:
    """Say where it is, to a person."""
    settings = read_settings(server.cfg)
    places = [address_of(listener) for listener in server.LISTENERS]
    said = ", ".join(url_of(place, tls=bool(server.cfg.is_ssl)) for place in places)
    plugins = root_text(settings.plugins_dir, watch=settings.watch)
    log.info("Benana serves %s (%s)", said, plugins)


def pre_exec(server: Any) -> None:
    """Hand the folders down to the master that USR2 starts: its environment is gunicorn's own."""
    server.cfg.env_orig.update(_folders)


def on_exit(_server: Any) -> None:
    """Stop the database that was started here."""
    if _master.postgres is not None:
        _master.postgres.stop()


# --- in a worker ---------------------------------------------------------------------------


def post_worker_init(worker: Any) -> None:
    """Build the server and load everything that is registered, before the first request."""
    from app.wsgi import application  # not before gunicorn does: it looks who imports it

    faults = faulty_hooks(worker.cfg)
    if faults:
        log.error("%s", sentence(faults))
        return
    prepare_process()
    settings = read_settings(worker.cfg)
    listening = tuple(address_of(listener) for listener in worker.sockets)
    app = create_app(replace(settings, listening=listening))
    become_parent(worker, app.manager.let_go)
    application.begin(app)
    if worker.wsgi is application:
        worker.wsgi = app  # which spares each request a call
    gc.collect()
    gc.freeze()  # what is here now stays: collections look at plugins alone
    activity = getattr(worker, "activity", None)  # None with another worker class, `-k`
    if activity is not None:
        app.running.share(activity)
    exit_functions.watch()
    if activity is None:
        app.manager.start(worker.notify, lambda **_: os.kill(os.getpid(), signal.SIGTERM))
        return
    if not app.manager.start(worker.notify, worker.ask_to_be_replaced, relieves=worker.relieves):
        sys.exit(0)  # the log says why; the master starts another one
    worker.on_drain, worker.on_quiet = app.manager.drain, app.manager.drained
    worker.on_look = SelfWatch(app.manager).look
    worker.begin_serving()


def worker_exit(_server: Any, _worker: Any) -> None:
    """Clean the plugins up and end what they started; one that never loaded any has nothing."""
    wsgi = sys.modules.get("app.wsgi")
    if wsgi is not None and wsgi.application.app is not None:
        try:
            wsgi.application.app.manager.stop()
        finally:
            try:
                end_descendants()
            finally:
                bound_the_end()


# --- steps -----------------------------------------------------------------------------------


def _begin(server: Any) -> None:
    """Start what lives as long as the master, and publish.

    Raises:
        BenanaError: the server cannot be started so.
    """
    configuration = server.cfg
    settings = read_settings(configuration)
    _folders["BENANA_DATA_DIR"] = str(settings.data_dir)
    _folders["BENANA_ARTIFACTS_DIR"] = str(settings.artifacts_dir)
    if differs(configuration.uid):
        _prepare_other_user(configuration, settings)
    elif settings.database_url is None:
        _master.postgres = EmbeddedPostgres(settings.data_dir)
        _master.postgres.start()
        _master.postgres.keep()
    _master.begun, _master.folder = True, Path.cwd()
    make_first_root(settings)
    crashed = CrashedLoads(settings.artifacts_dir)
    Arbiter.look_after(
        server,
        crashed,
        Orphans(),
        _supervisor,
        drain_seconds=settings.round_drain_seconds,
        max_draining=settings.round_draining,
    )
    _publish(configuration, settings)


def _supervisor() -> int | None:
    return None if _master.postgres is None else _master.postgres.supervisor


def _prepare_other_user(configuration: Any, settings: Settings) -> None:
    """Make ready for workers that are another user than this master, which is root.

    Raises:
        SettingsError: they could not work; the message says what to do.
    """
    user = user_text(configuration.uid)
    if settings.database_url is None:
        raise SettingsError(
            "The embedded PostgreSQL lets in the server's own user and root alone, and the workers "
            f"are to run as {user}. Start gunicorn itself as {user} (`User={user}` in systemd, "
            f"`runuser -u {user} -- gunicorn`) instead of with --user, or set DATABASE_URL."
        )
    make_folders([settings.artifacts_dir, settings.data_dir], configuration.uid, configuration.gid)
    place = unusable_place(settings, configuration)
    if place is not None:
        raise SettingsError(place)


def _publish(configuration: Any, settings: Settings) -> None:
    """Publish what changed, as the workers' user; what it takes is gone afterwards."""

    def work() -> int:
        create_app(settings).manager.publish_at_start()
        return 0

    code = run_apart(
        work, configuration.uid, configuration.gid, initgroups=configuration.initgroups
    )
    if code != 0:
        log.error("publishing at the start ended with %d; the workers make up for it", code)
    _master.published = settings.plugins_dir


def _warn_of_folders(settings: Settings) -> None:
    """Say where the data stays, if that is a release that will be removed one day."""
    kept = [path for path in (settings.data_dir, settings.artifacts_dir) if _is_left_behind(path)]
    if kept:
        log.warning(
            "the plugins come from %s now; what the server keeps stays in %s: set BENANA_DATA_DIR "
            "and BENANA_ARTIFACTS_DIR to folders outside of the releases before that is removed",
            settings.plugins_dir,
            " and ".join(map(str, kept)),
        )


def _is_left_behind(path: Path) -> bool:
    folder = _master.folder
    if folder is None or not path.is_relative_to(folder):
        return False
    try:
        return folder != Path.cwd()
    except FileNotFoundError:  # it was removed
        return True


def _end(configuration: Any, reason: str) -> Never:
    if configuration.errorlog != "-":  # a daemon has no standard error
        log.critical("%s", reason)
    sys.exit(f"benana: {reason}")
