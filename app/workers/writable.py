"""The folders that the server writes to, where its workers are another user than root."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import SettingsError
from app.package.version_folders import UNPACKED
from app.settings import Settings
from app.workers.identity import as_user, run_apart, user_text


def make_folders(folders: Iterable[Path], uid: int, gid: int) -> None:
    """Make the folders that are missing, and give to a user those alone that were made.

    Raises:
        SettingsError: one cannot be made.
    """
    for folder in folders:
        missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
        try:
            with suppress(PermissionError), as_user(uid, gid):
                folder.mkdir(parents=True, exist_ok=True)
            for path in reversed(missing):
                if not path.exists():
                    path.mkdir()
                    os.chown(path, uid, gid, follow_symlinks=False)
        except OSError as error:
            raise SettingsError(f"{folder} cannot be made: {error.strerror}.") from None


def unusable_place(settings: Settings, configuration: Any) -> str | None:
    """Return a sentence about the first place that the workers' user cannot use, None if all do.

    Args:
        settings: the server's.
        configuration: gunicorn's settings, which name the user.
    """
    read, write = os.pipe()
    try:
        run_apart(
            lambda: _tell(write, _first_unusable(settings)),
            configuration.uid,
            configuration.gid,
            initgroups=configuration.initgroups,
        )
        os.set_blocking(read, False)
        told = b""
        with suppress(BlockingIOError):
            told = os.read(read, 8192)
    finally:
        os.close(read)
        os.close(write)
    if not told:
        return None
    path, _, need = os.fsdecode(told).partition("\0")
    user = user_text(configuration.uid)
    if need == "write":
        folder = next(
            (
                x
                for x in (settings.artifacts_dir, settings.data_dir)
                if Path(path).is_relative_to(x)
            ),
            Path(path),
        )
        advice = f"give it to {user} (`chown -R {user} {folder}`), or set the folders' settings"
    else:
        advice = f"let {user} read it and all the folders above it"
    return (
        f"The workers are to run as {user} (--user), and {user} cannot {need} {path}, which "
        f"belongs to {user_text(os.lstat(path).st_uid)}: {advice}."
    )


def _tell(pipe: int, place: tuple[Path, str] | None) -> int:
    if place is not None:
        os.write(pipe, os.fsencode(f"{place[0]}\0{place[1]}"))
    return 0


def _first_unusable(settings: Settings) -> tuple[Path, str] | None:
    """Look, as the user that the workers will be."""
    for path in (Path(sys.executable), Path(__file__), settings.plugins_dir):
        try:
            path.stat()
        except FileNotFoundError:
            continue  # that the plugins' root is missing is said elsewhere
        except PermissionError:
            return path, "read"
        if not _may(path, os.R_OK):
            return path, "read"
    if not settings.watch:
        return None  # a host that only serves needs no folder to write to
    for path in (settings.artifacts_dir, settings.data_dir, *_own_state(settings.artifacts_dir)):
        if not _may(path, os.R_OK | os.W_OK):
            return path, "write"
    return None


def _may(path: Path, right: int) -> bool:
    return os.access(path, right | (os.X_OK if os.path.isdir(path) else 0))  # noqa: PTH112


def _own_state(artifacts_dir: Path) -> Iterable[Path]:
    """Give the host's own files beside the archives: a server of root's has made them its own."""
    with suppress(OSError):
        for path in artifacts_dir.iterdir():
            if path.name.startswith(".") or path.name == UNPACKED:
                yield path
                if path.is_dir():
                    yield from path.iterdir()
