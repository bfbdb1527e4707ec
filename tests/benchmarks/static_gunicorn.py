"""The peers' gunicorn settings: those of Benana's own `gunicorn.conf.py`."""

import os

wsgi_app = "tests.benchmarks.static_app:app"
bind = f"127.0.0.1:{os.environ['STATIC_PORT']}"
workers = int(os.environ["STATIC_WORKERS"])
threads = int(os.environ.get("STATIC_THREADS", "8"))
keepalive = 15
worker_class = "gthread"
control_socket_disable = True
worker_tmp_dir = "/dev/shm"
if os.environ.get("STATIC_RELOAD") == "gunicorn":
    reload = True


def post_worker_init(worker: object) -> None:
    """Let jurigged watch the plugins, where it is the peer."""
    if os.environ.get("STATIC_RELOAD") == "jurigged":
        import jurigged

        jurigged.watch(os.environ["STATIC_ROOT"] + "/plugs/**/*.py", logger=lambda _: None)
