"""The small single-threaded process that trials are forked from (`python -m` this module).

It has Falcon and the loader imported, and has tried a small plugin itself: a trial costs a fork and
not an interpreter, and nothing that Python does only the first time; the next one's process is
there already (`trial_spare`). It serves one parent over the socket on its standard input and ends,
with all that trials have started, when that is closed.

A request is one message of JSON with four file descriptors: the source, a file for the archive,
the report pipe and the status pipe. The child compiles and then loads. It writes a line `@phase` to
the report as it reaches each phase, `=file` as it compiles each file, and at the end one line of
JSON; the server writes the child's end to the status pipe. A parent that closes its end of the
status pipe has given the trial up. With `rehearse` in it the first two files are archives that are
loaded beside each other (`rehearsal_child`), and the last line says what was found.
"""

import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.descendants import adopter, end_all, end_orphans
from app.processes import die_with_parent
from app.publishing.trials.trial_child import run_child, try_first, warm_up
from app.publishing.trials.trial_memory import resident_bytes
from app.publishing.trials.trial_spare import MAX_REQUEST_BYTES, Spare

ORPHAN_SECONDS = 0.5
"""How long a verdict waits for the end of the processes that the trial has left behind."""

SAMPLE_SECONDS = 0.05
"""How often it is looked how much memory the trials that run have taken."""

GRACE_SECONDS = 0.3
"""How long a trial that ran out of time has to say where it is, before it is killed."""


@dataclass(slots=True)
class _Child:
    """A trial: `compiled` is readable once it is compiled, and it has `seconds` from then on.

    `memory` is how many bytes may be resident; `end` is what there is to say of it, once it has
    ended.
    """

    pid: int
    status: int
    compiled: int
    deadline: float
    seconds: float
    memory: int
    timed_out: bool = False
    large_since: float = 0.0
    """When it was seen to take more memory than it may, in monotonic seconds; 0.0 if it was not."""
    end: dict[str, Any] | None = None

    def hear(self, pipe: int) -> None:
        """Act on a pipe that can be read: it is compiled, or its parent has given it up."""
        if self.end is not None:
            return
        if pipe == self.status:
            _kill_group(self.pid, signal.SIGKILL)
        elif os.read(pipe, 1):
            self.timed_out = False  # late, but compiled: the trial begins
            self.deadline = time.monotonic() + self.seconds


def serve(control: socket.socket, temporary: str) -> None:
    """Fork a trial for each request, until the parent closes the socket.

    Args:
        control: where requests come from.
        temporary: a folder for what the spare processes try.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, _Child] = {}
    spare = Spare(partial(try_first, temporary), run_child)
    adopt, arm = adopter(), die_with_parent(signal.SIGKILL)
    adopt()

    def begin() -> None:
        arm()
        adopt()
        control.close()

    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            times = [child.deadline - now for child in children.values()]
            times += [SAMPLE_SECONDS for child in children.values() if child.end is None][:1]
            timeout = min(times, default=None)
            if not children:
                timeout = spare.due_in()
            for key, _ in selector.select(timeout if timeout is None else max(0.0, timeout)):
                if key.fileobj == wake_read:
                    with suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                elif isinstance(key.data, _Child):
                    selector.unregister(key.fd)
                    key.data.hear(key.fd)
                else:
                    child = _accept(control, children, begin, spare)
                    if child is None:
                        for pid in children:
                            _kill_group(pid, signal.SIGKILL)
                        end_all()
                        return
                    # A pipe's writing end is never readable: only its closing is an event.
                    selector.register(child.status, selectors.EVENT_READ, child)
                    selector.register(child.compiled, selectors.EVENT_READ, child)
            _reap(children)
            spare.reap()
            if children:
                spare.want()
            running = [child.pid for child in children.values() if child.end is None]
            _report(children, selector, alone=end_orphans([*running, spare.pid]))
            _stop_late(children)
            _stop_large(children)
            if not children:
                spare.make_when_due(begin)


def _accept(
    control: socket.socket, children: dict[int, _Child], begin: Callable[[], None], spare: Spare
) -> _Child | None:
    message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
    if not message:
        return None
    request = json.loads(message)
    parcel, archive, report, status = fds
    compiled, has_compiled = os.pipe()
    # The spare one is for who waits: for a rehearsal nobody does, as a rule.
    given = [parcel, archive, report, has_compiled]
    taken = None if "rehearse" in request else spare.take(request, given)
    pid = taken or os.fork()
    if pid == 0:
        begin()
        spare.close()
        os.close(status)
        os.close(compiled)
        for other in children.values():
            os.close(other.status)
            os.close(other.compiled)
        run_child(request, parcel, archive, report, has_compiled)
    for ours in (parcel, archive, report, has_compiled):
        os.close(ours)
    deadline = time.monotonic() + request["compile_seconds"]
    child = children[pid] = _Child(
        pid, status, compiled, deadline, request["seconds"], request["memory_bytes"]
    )
    return child


def _reap(children: dict[int, _Child]) -> None:
    """Note which trials have ended."""
    for child in children.values():
        if child.end is None:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                _kill_group(child.pid, signal.SIGKILL)  # what the plugin started goes with it
                code = os.waitstatus_to_exitcode(status)
                child.end = {
                    "code": code,
                    "timed_out": child.timed_out,
                    "too_large": child.memory if child.large_since else 0,
                }
                child.deadline = time.monotonic() + ORPHAN_SECONDS


def _report(children: dict[int, _Child], selector: selectors.BaseSelector, *, alone: bool) -> None:
    """Tell the parent of the trials that have ended, once nothing of them is left."""
    for child in list(children.values()):
        if child.end is None or not (alone or time.monotonic() >= child.deadline):
            continue
        for pipe in (child.status, child.compiled):
            with suppress(KeyError):
                selector.unregister(pipe)
        os.close(child.compiled)
        with suppress(BrokenPipeError):
            os.write(child.status, json.dumps(child.end).encode())
        os.close(child.status)
        del children[child.pid]


def _stop_late(children: dict[int, _Child]) -> None:
    now = time.monotonic()
    for child in children.values():
        if child.end is not None or now < child.deadline:
            continue
        if child.timed_out:
            _kill_group(child.pid, signal.SIGKILL)
            child.deadline = now + 1.0
        else:
            child.timed_out = True
            child.deadline = now + GRACE_SECONDS
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGUSR1)  # faulthandler writes where it is


def _stop_large(children: dict[int, _Child]) -> None:
    now = time.monotonic()
    for child in children.values():
        if child.end is not None or resident_bytes(child.pid) <= child.memory:
            continue
        if not child.large_since:
            child.large_since = now
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGUSR1)  # faulthandler writes where it is
        elif now >= child.large_since + SAMPLE_SECONDS:
            _kill_group(child.pid, signal.SIGKILL)


def _kill_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


if __name__ == "__main__":
    own_folder = tempfile.TemporaryDirectory(prefix="benana-trials-", ignore_cleanup_errors=True)
    with own_folder as temporary, socket.socket(fileno=os.dup(0)) as parent:
        warm_up(temporary)
        serve(parent, temporary)
    sys.exit(0)
