"""The users of this host: which one a file belongs to, and what one may do."""

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import EmbeddedDatabaseError

NAME = "benana"
"""Of the database, of its superuser, and of the system user that root runs PostgreSQL as."""


@dataclass(frozen=True)
class Account:
    """The unprivileged user that PostgreSQL runs as when Benana runs as root."""

    name: str
    uid: int
    gid: int

    def can(self, check: Callable[[], bool]) -> bool:
        """Return what `check` says in a process that really runs as this account.

        Raises EmbeddedDatabaseError where this process may not become the account.
        """
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
                os._exit(0 if check() else 1)
            finally:
                os._exit(2)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, 1):
            raise EmbeddedDatabaseError(
                f"PostgreSQL does not run as root, and this process may not become the user "
                f"{self.name} (are CAP_SETUID and CAP_SETGID taken away?). Run Benana as an "
                f"ordinary user, or set DATABASE_URL."
            )
        return code == 0


def user_name(uid: int) -> str:
    """Return the name of a user id, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_of(path: Path) -> Account:
    """Return the account that a file or folder belongs to."""
    status = path.stat()
    return Account(user_name(status.st_uid), status.st_uid, status.st_gid)
