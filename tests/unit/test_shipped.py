"""The files of a checkout's top level are found there, and in an installed package."""

import shutil
from pathlib import Path

import app.shipped
from app.database.schema import SCHEMA_FILE
from app.shipped import shipped_file

CHECKOUT = Path(__file__).parents[2]


def test_in_a_checkout_they_are_at_the_top_level():
    assert shipped_file("schema.sql") == SCHEMA_FILE == CHECKOUT / "schema.sql"
    assert shipped_file("gunicorn.conf.py") == CHECKOUT / "gunicorn.conf.py"


def test_in_an_installed_package_the_copy_inside_goes_before_somebody_elses(tmp_path, monkeypatch):
    package = tmp_path / "app"
    package.mkdir()
    for place in (tmp_path, package):
        shutil.copy(CHECKOUT / "gunicorn.conf.py", place)
    monkeypatch.setattr(app.shipped, "__file__", str(package / "shipped.py"))
    assert shipped_file("gunicorn.conf.py") == package / "gunicorn.conf.py"
