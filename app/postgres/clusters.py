"""The folders of a cluster (PostgreSQL's word for its data folder): found, made, discarded."""

import os
import shutil
import tempfile
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.shared_folder import make_public_folder
from app.postgres.users import Account, user_name


def find_cluster(data_dir: Path) -> Path | None:
    """Return the real path of the data folder's cluster, or None if there is none yet.

    Raises EmbeddedDatabaseError if there is one that cannot be used: its link leads nowhere, or
    it belongs to somebody else.
    """
    link = data_dir / "postgres"
    if not os.path.lexists(link):
        return None
    if not link.exists():
        raise EmbeddedDatabaseError(
            f"{link} is a link to {link.readlink()}, and nothing is there. Bring that folder "
            f"back, or remove the link to begin with an empty database."
        )
    cluster = link.resolve()
    owner = cluster.stat().st_uid
    if os.geteuid() == 0 and owner == 0:
        raise EmbeddedDatabaseError(
            f"The database {cluster} belongs to root, and PostgreSQL does not run as root. Give "
            f"it to another user (`chown -R`), or set BENANA_DATA_DIR to another folder."
        )
    if os.geteuid() not in (0, owner):
        raise EmbeddedDatabaseError(
            f"The database {cluster} belongs to the user {user_name(owner)}, and Benana runs as "
            f"{user_name(os.geteuid())}. Run it as {user_name(owner)}, or set BENANA_DATA_DIR "
            f"to another folder."
        )
    return cluster


def new_cluster_folder(data_dir: Path, account: Account | None, shared_dir: Path) -> Path:
    """Make the empty folder `<data_dir>/postgres.new` for initdb and return its real path.

    Where the account cannot traverse the data folder, `postgres.new` is a link to a folder in
    `shared_dir`. Either way, renaming `postgres.new` to `postgres` publishes the cluster.
    """
    discard_new_cluster(data_dir, shared_dir)
    new = data_dir / "postgres.new"
    if account is None or account.can(lambda: os.access(data_dir, os.X_OK)):
        new.mkdir(mode=0o700)
        folder = new
    else:
        clusters = shared_dir / "clusters"
        make_public_folder(shared_dir)
        make_public_folder(clusters)
        if not account.can(lambda: os.access(clusters, os.X_OK)):
            raise EmbeddedDatabaseError(
                f"The user {account.name}, which PostgreSQL runs as, can reach neither "
                f"{data_dir} nor {clusters}. Set BENANA_DATA_DIR to a folder it can reach."
            )
        folder = Path(tempfile.mkdtemp(prefix=f"{data_dir.parent.name}-", dir=clusters))
        new.symlink_to(folder)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    return folder


def discard_new_cluster(data_dir: Path, shared_dir: Path) -> None:
    """Remove what an initdb that failed or was killed has left, if anything."""
    new = data_dir / "postgres.new"
    if new.is_symlink():
        folder = new.resolve()
        if folder.parent == (shared_dir / "clusters").resolve():
            shutil.rmtree(folder, ignore_errors=True)
        new.unlink()
    else:
        shutil.rmtree(new, ignore_errors=True)
