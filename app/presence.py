"""Which process this is, and whether another one of its machine is gone."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_GONE_STATES = frozenset("ZX")  # ended, and not reaped yet by its parent (proc(5))


@dataclass(frozen=True, slots=True)
class Presence:
    """A process, as others of its machine can look it up.

    `machine` names what process ids are unique in: a boot of a kernel and a namespace of process
    ids (a container has its own). `started` tells it from a later process of the same id, in clock
    ticks since the boot. Both are None where the system does not tell (macOS).
    """

    machine: str | None
    pid: int
    started: int | None

    def is_gone(self) -> bool:
        """Tell whether it is certain that the process has ended.

        Of another machine's process nothing is certain, nor of one that may not be looked at.
        """
        if self.machine is None or self.started is None or self.machine != _machine():
            return False
        started = _look_up(self.pid)
        return started is not None and started != self.started


def own_presence() -> Presence:
    """Return the presence of the process that asks."""
    pid = os.getpid()
    return Presence(_machine(), pid, _look_up(pid) or None)


@cache
def _machine() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return None


def _look_up(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the boot.

    Returns:
        0 if there is none that runs, None if that cannot be told.
    """
    try:
        # The name, in brackets, may hold anything; 20 fields after it comes the start (proc(5)).
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0 if state.decode() in _GONE_STATES else int(fields[18])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except (OSError, ValueError, IndexError):
        return None
