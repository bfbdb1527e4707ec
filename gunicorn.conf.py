"""Settings → gunicorn. What Benana does in it comes by the one line that any such file can have."""

import sys

from app.errors import SettingsError
from app.hooks import *  # noqa: F403 - the worker class and the hooks
from app.hooks import read_settings

try:
    settings = read_settings()
except SettingsError as error:
    sys.exit(f"benana: {error}")

wsgi_app = "app.wsgi:application"
bind = settings.bind
workers = settings.workers
threads = settings.threads
keepalive = 15
umask = 0o007  # of a unix socket: 0770, for the user and the group that gunicorn's `group` names
control_socket_disable = True  # two servers of one user would collide on it
if sys.platform == "linux":
    worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat must not wait for a disk
