"""Work that a master of root's does as the user of its workers: theirs are the files.

What workers may write, they may have made a link to anywhere: root must not follow it.
"""

import os
import pwd
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Never

from gunicorn.util import set_owner_process

from app.processes import die_with_parent


def differs(uid: int) -> bool:
    """Tell whether workers of a user run as another one than this process."""
    return os.geteuid() == 0 and uid != 0


def user_text(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Touch files as another user for the length of a `with` block, where this process is root.

    For the main thread of a process that has nothing else to do meanwhile.
    """
    if not differs(uid):
        yield
        return
    groups, own_gid = os.getgroups(), os.getegid()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(groups)


def run_apart(work: Callable[[], int], uid: int, gid: int, *, initgroups: bool) -> int:
    """Run something in a process of its own that is a user for good; return its exit code.

    What it opens, starts and imports leaves nothing in this process. A user that we are already
    is no change.
    """
    end_with_us = die_with_parent(signal.SIGKILL)
    child = os.fork()
    if child == 0:
        _run(work, uid, gid, initgroups, end_with_us)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise


def _run(
    work: Callable[[], int],
    uid: int,
    gid: int,
    initgroups: bool,
    end_with_parent: Callable[[], None],
) -> Never:
    code = 1
    try:
        if differs(uid):
            set_owner_process(uid, gid, initgroups=initgroups)
        end_with_parent()
        code = work()
    except Exception:  # noqa: BLE001 - nothing of the parent's stack is to run here
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as where it was closed before the start
                    stream.flush()
        finally:
            os._exit(code)
