"""Settings → gunicorn. The master publishes what changed, each worker serves what is registered."""

import errno
import gc
import logging
import os
import signal
import socket
import sys
from dataclasses import replace

from app import logs
from app.arbiter import Arbiter
from app.database.connection import connection_options
from app.database.embedded import EmbeddedPostgres
from app.errors import BenanaError, SettingsError
from app.server import create_app
from app.serving.crashes import CrashedLoads
from app.settings import Settings

try:
    settings = Settings.from_environment()
    for url in (settings.database_url, settings.listen_database_url):
        if url:
            connection_options(url)
except SettingsError as error:
    sys.exit(f"benana: {error}")

wsgi_app = "app.wsgi:application"
bind = settings.bind
workers = settings.workers
threads = settings.threads
keepalive = 15
worker_class = "app.worker.Worker"  # gunicorn's "gthread", and what its master shows of it
preload_app = False  # a thread that is started before the fork does not exist in a worker
umask = 0o007  # of a unix socket: 0770, for the user and the group that gunicorn's `group` names
control_socket_disable = True  # two servers of one user would collide on it
if sys.platform == "linux":
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat shall not wait for a disk

log = logging.getLogger("benana")


# What must outlive this file is kept on the arbiter: HUP runs the file again.


def on_starting(server):
    """Start the database, publish what changed; the port opens afterwards."""
    global settings
    logs.follow_gunicorn(server.cfg)
    os.environ["BENANA_BIND"] = _bind_of(server)  # where `--bind` says otherwise, it counts
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(server.cfg.forwarded_allow_ips)  # likewise
    settings = Settings.from_environment()
    _refuse_busy_port(server)
    server.postgres = None
    if settings.database_url is None:
        server.postgres = EmbeddedPostgres(settings.data_dir)
        try:
            server.postgres.start()
            server.postgres.keep()
        except BenanaError as error:
            _refuse(server, str(error))
    Arbiter.look_after(server, CrashedLoads(settings.artifacts_dir))
    create_app(settings).manager.publish_at_start()


def on_reload(server):
    """Take the log in hand again: HUP has set it up anew."""
    logs.follow_gunicorn(server.cfg)


def when_ready(server):
    """Say where it is, to a person."""
    address = settings.bind if settings.bind.startswith("unix:") else f"http://{settings.bind}"
    log.info("Benana serves %s (plugins in %s)", address, settings.plugins_dir)


def post_worker_init(worker):
    """Load everything that is registered, before the worker accepts a request."""
    gc.collect()
    gc.freeze()  # what is here now stays: collections look at plugins alone
    activity = getattr(worker, "activity", None)  # None with another worker class, `-k`
    if activity is not None:
        worker.wsgi.running.share(activity)
    worker.wsgi.manager.start(worker.notify, lambda: os.kill(os.getpid(), signal.SIGTERM))
    if activity is not None:
        activity.begin_serving()


def worker_exit(server, worker):
    """Clean the plugins up; a worker that never came to load them has nothing to stop."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.manager.stop()


def on_exit(server):
    """Stop the database that was started here."""
    if server.postgres is not None:
        server.postgres.stop()


def _bind_of(server):
    # Of several addresses one that others can reach: it decides what the admin guard asks for.
    binds = [_text_of(address) for address in server.cfg.address]
    return next(
        (bind for bind in binds if not replace(settings, bind=bind).bind_is_local), binds[0]
    )


def _text_of(address):
    if isinstance(address, int):  # a socket that was inherited
        with socket.socket(fileno=os.dup(address)) as inherited:
            address = inherited.getsockname()
    if isinstance(address, (str, bytes)):
        return f"unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse_busy_port(server):
    # gunicorn would try for 5 s, and after the plugins have been published.
    inherited = os.environ.get("LISTEN_FDS") or os.environ.get("GUNICORN_FD")
    if settings.bind.startswith("unix:") or inherited:
        return
    host, _, port = settings.bind.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is in use: stop the other server"
        else:
            reason = f"cannot be bound ({error.strerror}): choose another address"
        _refuse(server, f"{settings.bind} {reason}, or set BENANA_BIND.")


def _refuse(server, reason):
    # A daemon has no standard error.
    if server.cfg.errorlog != "-":
        log.critical("%s", reason)
    sys.exit(f"benana: {reason}")
