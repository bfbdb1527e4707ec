"""The WSGI callable of gunicorn; `gunicorn.conf.py` starts and stops its manager."""

from app.server import create_app
from app.settings import Settings

application = create_app(Settings.from_environment())
