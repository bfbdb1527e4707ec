"""Who the embedded PostgreSQL runs as, and whom it lets in.

Rows name code, and the code runs as the user of the server. So where that is root, who may write
rows (PostgreSQL's own user can, past every check) must be nobody but root: an account of its own.
"""

import grp
import logging
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from app.errors import EmbeddedDatabaseError
from app.postgres.shared_folder import locked
from app.postgres.sockets import SOCKET_NAME
from app.postgres.users import NAME, Account, owner_of, user_name

log = logging.getLogger(__name__)

NOBODY = "nobody"
SHARED = ("postgres", NOBODY)  # accounts that other programs run as, too
MAKE_USER = (
    "useradd", "--system", "--no-create-home", "--home-dir=/nonexistent",
    "--shell=/usr/sbin/nologin", "--comment=PostgreSQL of Benana",
)  # fmt: skip
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def choose_account(cluster: Path | None, data_dir: Path, shared_dir: Path) -> Account | None:
    """Return the account to run PostgreSQL as, or None to run it as who we are.

    For root that is the system user `benana`, which is made if it is missing. An existing cluster
    stays its owner's, so that a `sudo` among ordinary runs changes nothing; but one that root had
    run as an account that others share is to be given to `benana` (`give`).

    Raises EmbeddedDatabaseError if the user cannot be made, and the alternative is `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if cluster is None:
        return _own_account(shared_dir)
    owner = owner_of(cluster)
    if owner.name not in SHARED:
        return owner
    try:
        if data_dir.stat().st_uid == owner.uid:
            raise EmbeddedDatabaseError(
                f"Its data folder is {owner.name}'s as well: give both to root to have it "
                f"changed (`chown root {data_dir}`), or run Benana as {owner.name}."
            )
        own = _own_account(shared_dir)
        if not own.can(lambda: os.access(cluster.parent, os.X_OK)):
            raise EmbeddedDatabaseError(f"The user {own.name} cannot reach {cluster.parent}.")
    except EmbeddedDatabaseError as error:
        danger = (
            f"The database {cluster} belongs to {owner.name}, which other programs run as, too: "
            f"they can write what this server runs as root. {error}"
        )
        if owner.name == NOBODY:
            raise EmbeddedDatabaseError(danger) from None
        log.warning("%s", danger)
        return owner
    return own


def give(cluster: Path, sockets: Path, account: Account) -> None:
    """Make a cluster that nobody runs another account's, with what is in its socket's folder.

    Only files of the owner before are changed, and no second name of a file that lies elsewhere.
    The cluster's folder comes last, so that what is interrupted is done again.
    """
    former = cluster.stat().st_uid
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (sockets / name).unlink(missing_ok=True)
    for _, _, files, folder in os.fwalk(cluster, topdown=False):
        for name in files:
            with suppress(OSError):  # a link or a socket, neither of which has to be given away
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                try:
                    status = os.fstat(file)
                    whole = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
                    if whole and status.st_uid == former:
                        os.fchown(file, account.uid, account.gid)
                finally:
                    os.close(file)
        if os.fstat(folder).st_uid == former:
            os.fchown(folder, account.uid, account.gid)
    log.warning(
        "The database %s belonged to %s, which other programs run as, too; it belongs to the user "
        "%s now.",
        cluster,
        user_name(former),
        account.name,
    )


def admit(cluster: Path, account: Account | None) -> dict[str, str]:
    """Write who may connect, and return the settings that make PostgreSQL read it.

    That is our own user and root, as any role; whoever else reaches the socket is refused (`peer`,
    PostgreSQL documentation, "Peer Authentication"). A user without a name, as containers have
    them, cannot be told from others by it: then the private folder of the socket must do.
    """
    names = {user.pw_uid: user.pw_name for user in map(_user, (os.geteuid(), 0)) if user}
    named = os.geteuid() in names
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in names.values()]
    note = "# Written by Benana at each start.\n"
    files = {
        "hba_file": f"local all all {'peer map=benana' if named else 'trust'}\n",
        "ident_file": "".join(f"benana {name} all\n" for name in quoted),
    }
    settings = {}
    for setting, text in files.items():
        path = cluster / f"benana_{setting.removesuffix('_file')}.conf"
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(note + text)
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
        new.rename(path)
        settings[setting] = str(path)
    return settings


def _user(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _own_account(shared_dir: Path) -> Account:
    """Return the system user `benana`; make it if it is missing."""
    with suppress(KeyError):
        return _account()
    with locked(shared_dir):  # two data folders may want it at once
        with suppress(KeyError):
            return _account()
        failure = _make_user()
        with suppress(KeyError):
            account = _account()
            log.info(
                "made the system user %s (uid %d), which PostgreSQL runs as", NAME, account.uid
            )
            return account
    raise EmbeddedDatabaseError(
        f"PostgreSQL does not run as root, and the user {NAME} that it is to run as cannot be made "
        f"({failure}). Make it (`{' '.join(MAKE_USER[:3])} {NAME}`, in a container's image), run "
        f"Benana as an ordinary user, or set DATABASE_URL."
    )


def _account() -> Account:
    entry = pwd.getpwnam(NAME)
    if entry.pw_uid == 0:
        raise EmbeddedDatabaseError(
            f"The user {NAME} is another name of root, which PostgreSQL does not run as: give it a "
            f"uid of its own, run Benana as an ordinary user, or set DATABASE_URL."
        )
    return Account(NAME, entry.pw_uid, entry.pw_gid)


def _make_user() -> str:
    """Make the system user; return what went wrong, if anything did."""
    program = shutil.which(MAKE_USER[0], path=SYSTEM_PATH)
    if program is None:
        return f"there is no {MAKE_USER[0]} here"
    group = ["--user-group"]
    with suppress(KeyError):
        group = [f"--gid={grp.getgrnam(NAME).gr_gid}"]
    command = [program, *MAKE_USER[1:], *group, NAME]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PATH": SYSTEM_PATH}
    )
    return " ".join(done.stderr.split()) or f"{program} ended with {done.returncode}"
