"""What a plugin's `requirements.txt` asks for, what is installed, and what this process imported.

Nothing is installed: what a running server may import is its operator's to decide.
"""

import importlib.metadata
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from app.errors import DiscoveryError

FILE_NAME = "requirements.txt"

_INSTALLED = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-.*)?\.(dist|egg)-info")


class InstalledPackages:
    """The packages of this environment, looked at again whenever its folders change.

    A package that is replaced stays in the memory of a process that had imported it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: tuple[tuple[str, int], ...] = ()
        self._versions: dict[str, str] = {}
        self._replaced: dict[str, tuple[str, frozenset[str]]] = {}
        """The version that a package had, and the modules that were imported at that time."""
        self.changes = 0
        """How often the folders were found changed."""
        self.look()

    def look(self) -> None:
        """Look at the folders: a few system calls where nothing changed."""
        with self._lock:
            folders = tuple((folder, _mtime(folder)) for folder in _site_folders())
            if folders == self._folders:
                return
            self._folders = folders
            self.changes += 1
            versions = _versions(folder for folder, _ in folders)
            for name, version in self._versions.items():
                if versions.get(name) != version and name not in self._replaced:
                    imported = frozenset(module.partition(".")[0] for module in list(sys.modules))
                    self._replaced[name] = (version, imported)
            for name, version in versions.items():
                if name in self._replaced and self._replaced[name][0] == version:
                    del self._replaced[name]
            self._versions = versions

    def imported_version(self, distribution: importlib.metadata.Distribution) -> str | None:
        """Return which version this process has imported, None if it is the installed one."""
        self.look()
        with self._lock:
            replaced = self._replaced.get(_normal(distribution.metadata["Name"] or ""))
        if replaced is None or not _modules(distribution) & replaced[1]:
            return None
        return replaced[0]


def check_requirements(name: str, folder: Path, raw: bytes) -> None:
    """Refuse a plugin whose `requirements.txt` is not met, on the disk or in this process.

    Raises:
        DiscoveryError: all that is not met is named at once, with what to do.
    """
    text = raw.decode("utf-8-sig", "replace")
    text = re.sub(r"\\\r?\n", "  ", text)  # hashes stand on lines of their own, continued
    faults: list[tuple[str, int]] = []
    advice: list[str] = []
    pip = f"{shlex.quote(sys.executable)} -m pip install -r {shlex.quote(str(folder / FILE_NAME))}"
    for number, line in enumerate(text.splitlines(), 1):
        wanted = re.sub(r"(^|\s)#.*|\s--(hash|config-settings|global-option).*", "", line).strip()
        if not wanted or wanted.startswith("-"):
            continue  # pip's own options
        try:
            requirement = Requirement(wanted)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
        except InvalidRequirement:
            faults.append((f"{wanted!r} is no requirement", number))
            continue
        except ValueError as error:
            faults.append((f"{wanted!r} has a marker that cannot be evaluated ({error})", number))
            continue
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append((f"{wanted!r} is not installed", number))
            advice.append(f"run: {pip}")
            continue
        present = distribution.version
        if not requirement.specifier.contains(present, prereleases=True):
            faults.append((f"{wanted!r} is wanted, {present} is installed", number))
            advice.append(f"run: {pip}")
            continue
        imported = installed.imported_version(distribution)
        if imported is not None and not requirement.specifier.contains(imported, prereleases=True):
            faults.append(
                (
                    f"{wanted!r} is wanted, {present} is installed, {imported} is imported",
                    number,
                )
            )
            advice.append(
                f"stop the server and start it again: it has imported {requirement.name} {imported}"
            )
    if faults:
        raise DiscoveryError(
            name,
            "; ".join([message for message, _ in faults] + list(dict.fromkeys(advice))),
            file=FILE_NAME,
            line=faults[0][1],
        )


def _site_folders() -> list[str]:
    names = {"site-packages", "dist-packages"}
    return [folder for folder in dict.fromkeys(sys.path) if Path(folder).name in names]


def _mtime(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


def _versions(folders: Iterable[str]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for folder in folders:
        try:
            names = os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
        except OSError:
            continue
        for entry in names:
            match = _INSTALLED.fullmatch(entry)
            if match is not None:
                versions.setdefault(_normal(match["name"]), match["version"])
    return versions


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """Return the top-level modules of a distribution."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    if listed:
        return set(listed)
    return {path.parts[0].partition(".")[0] for path in distribution.files or () if path.parts}


installed = InstalledPackages()
"""One for the process, because its memory is one; made before a plugin imports anything."""
