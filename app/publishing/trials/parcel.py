"""A source as one file, to be handed to another process by its descriptor.

First a line with the length of a head, then the head, which is JSON, then the files' bytes. The
sender copies the bytes and does nothing else with them: it may be a process that serves.
"""

import fcntl
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO

from app.errors import TrialError
from app.records import Manifest, PluginSource

if sys.platform == "linux":
    SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def memory_file(name: str) -> IO[bytes]:
    """Return an empty file without a name in any folder; it goes away with its last descriptor."""
    if sys.platform == "linux":
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        return os.fdopen(os.memfd_create(name, flags), "w+b")
    return tempfile.TemporaryFile()


def seal(file: IO[bytes], copy: Path) -> Path:
    """Let nobody change a file that `memory_file` gave, and return where others can read it.

    Args:
        file: the file, open for writing.
        copy: where a copy is made if the system knows no other way.
    """
    file.flush()
    if sys.platform == "linux":
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
        return Path(f"/proc/{os.getpid()}/fd/{os.dup(file.fileno())}")
    file.seek(0)
    copy.write_bytes(file.read())
    return copy


def temporary_folder(plugin: str) -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for one trial of a plugin, which goes away with its `with` block.

    Raises:
        TrialError: it cannot be made.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="benana-trial-", ignore_cleanup_errors=True)
    except OSError as error:
        raise TrialError(
            plugin,
            f"it cannot be tried: no temporary folder can be made ({error.strerror or error}); "
            "set TMPDIR to a folder that can be written to",
            outside=True,
        ) from None


def write_parcel(source: PluginSource, file: IO[bytes]) -> None:
    """Write a source to a file; OSError if there is no room for it."""
    head = json.dumps(
        {
            "name": source.name,
            "folder": str(source.folder),
            "digest": source.digest,
            "manifest": asdict(source.manifest),
            "executable": sorted(source.executable),
            "files": [(path, len(raw)) for path, raw in source.files.items()],
        }
    ).encode()
    file.write(b"%d\n%b" % (len(head), head))
    for raw in source.files.values():
        file.write(raw)
    file.flush()


def read_parcel(file: IO[bytes]) -> PluginSource:
    """Read what `write_parcel` wrote, from the file's begin."""
    file.seek(0)
    head = json.loads(file.read(int(file.readline())))
    return PluginSource(
        head["name"],
        Path(head["folder"]),
        {path: file.read(size) for path, size in head["files"]},
        Manifest(**head["manifest"]),
        head["digest"],
        frozenset(head["executable"]),
    )
