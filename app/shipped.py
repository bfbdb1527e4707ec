"""Finds the files that stand at the top level of a checkout and travel in the wheel."""

from pathlib import Path


def shipped_file(name: str) -> Path:
    """Return where `schema.sql` or `gunicorn.conf.py` is.

    In an installed package it is the copy that `setup.py` puts into it. That comes first: in
    `site-packages`, which an installed package's parent is, another package's file might be.

    Args:
        name: the file's name.
    """
    here = Path(__file__)
    inside = here.with_name(name)
    return inside if inside.is_file() else here.parents[1] / name
