"""What gunicorn's hooks do in the master."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from app import hooks
from app.errors import DatabaseUnavailableError


def test_a_root_that_has_moved_ends_the_former_workers_though_it_cannot_be_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who watches the former root would publish it again, once the database is back."""

    def fail(*_: object) -> None:
        raise DatabaseUnavailableError("it is away")

    ended: list[str] = []
    for name in ("make_room", "_warn_of_folders"):
        monkeypatch.setattr(hooks, name, lambda _: None)
    monkeypatch.setattr("app.logs.follow_gunicorn", lambda _: None)
    monkeypatch.setattr(hooks, "_publish", fail)
    monkeypatch.setattr(hooks, "read_settings", lambda _: SimpleNamespace(plugins_dir=Path("/2")))
    monkeypatch.setattr(hooks, "_master", hooks._Master(begun=True, published=Path("/1")))
    configuration = SimpleNamespace(set=lambda *_: None)
    hooks.on_reload(SimpleNamespace(cfg=configuration, end_former=lambda: ended.append("former")))
    assert ended == ["former"]
