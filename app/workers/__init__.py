"""Benana's part of gunicorn: a master and workers that no plugin can end."""
