"""The memory that a trial may take: what it writes to, and not what it only reserves.

Address space says nothing: a WebAssembly engine or LMDB reserves far more than there is, and
touches little of it. On Linux the kernel refuses private memory that can be written to beyond the
limit (RLIMIT_DATA, setrlimit(2)), stacks of threads included, so that Python can still say where
that was. Memory that is shared escapes it; therefore the trial's server looks at what is resident,
too. On macOS, where the kernel does not keep to the limit, that look is all there is.
"""

import ctypes
import re
import resource
import sys
from pathlib import Path

MIB = 1024**2

RAISE_IT = "set BENANA_TRIAL_MEMORY_MB to more"
TAKE_LESS = f"take less at import and in initialize, or {RAISE_IT}"

_SHORTAGES = ("MemoryError", "RuntimeError: can't start new thread")
"""How Python says that the kernel refused memory, and the stack of a thread."""

_NO_MEMORY = "[Errno 12]"  # ENOMEM, in the text of an OSError

_RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)

_PROC_PIDTASKINFO = 4  # proc_pidinfo of <libproc.h>, proc_taskinfo of <sys/proc_info.h>
_TASKINFO_BYTES = 96
_RESIDENT_AT = 1  # its second word of 64 bits


def limit_memory(size: int) -> None:
    """Have the kernel refuse this process more than so many bytes of its own, where it can."""
    if sys.platform != "linux":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def resident_bytes(pid: int) -> int:
    """Return how much memory of a process is resident, shared memory included.

    Pages of files that it has mapped do not count on Linux: the kernel can take them back.

    Returns:
        0 where it has ended, or the system does not tell.
    """
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{pid}/status").read_text()  # proc(5)
        except OSError:
            return 0
        return sum(map(int, _RESIDENT.findall(status))) * 1024
    try:
        ask = ctypes.CDLL(None).proc_pidinfo
    except AttributeError:
        return 0
    info = (ctypes.c_uint64 * (_TASKINFO_BYTES // 8))()
    size = ask(pid, _PROC_PIDTASKINFO, ctypes.c_uint64(0), ctypes.byref(info), _TASKINFO_BYTES)
    return int(info[_RESIDENT_AT]) if size == _TASKINFO_BYTES else 0


def too_much(size: int) -> str:
    """Return a phrase for more memory than a trial may take."""
    return f"more than {size // MIB:,} MiB of memory, the limit of a trial"


def shortage(message: str, size: int) -> str:
    """Return what is to be added to the message of a trial's error, empty if it was no shortage."""
    if message.startswith(_SHORTAGES) or _NO_MEMORY in message:
        return f"; a trial may take {size // MIB:,} MiB of memory: {TAKE_LESS}"
    return ""
