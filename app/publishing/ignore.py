"""What in a plugin's folder is no part of it: by default, and by `ignore:` in its `plugin.yaml`."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

MANIFEST_NAME = "plugin.yaml"
MAX_WILDCARDS = 3
"""How many `*` a pattern may hold: what a regular expression takes grows with their power."""

_PASSING = {
    ".*": r"\..*",  # hidden: .git, .main.py.swp (vim), .main.py.AbC123 (rsync), ..data (Kubernetes)
    "__pycache__": r"__pycache__",
    "*.py[co]": r".*\.py[co]",
    "*~": r".*~",
    "*.sw[pxo], *.tmp, *.temp, *.bak, *.orig, *.rej, *.part":  # editors, patch, downloads
    r".*\.(?:swp|swx|swo|tmp|temp|bak|orig|rej|part)",
    "#*#, 4913, sed??????, *___jb_tmp___": r"#.*#|4913|sed[A-Za-z0-9]{6}|.*___jb_(?:tmp|old)___",
}  # fmt: skip
"""Names that tools leave for a moment or beside the source, and what they look like: they are no
part of a plugin, whatever its `ignore:` says."""

_COPY = "[Cc]opie|[Kk]opie|[Kk]opia|[Kk]opi|[Cc]opia|[Cc]ópia|Копия|副本|コピー"
"""What file managers of other languages call a copy."""

_BESIDE = {
    "*.sync-conflict-*": r"[^/]*\.sync-conflict-[^/]*",  # Syncthing
    "* (*conflict*)*": r"[^/]* \([^/]*[Cc]onflict[^/]*\)[^/]*",  # Dropbox, Nextcloud, Seafile
    "*_conflict-*": r"[^/]*_conflict-\d[^/]*",  # ownCloud
    "* (1).py, * 2.py, * copy.py, * - Copy.py":  # browsers, Google Drive, iCloud, Finder, Explorer
    r"[^/]* (?:\(\d+\)|\d+|(?:- )?[Cc]opy(?: \d+| \(\d+\))?)\.py",
    "* (*copy*).py":  # GNOME: (copy), (another copy), (3rd copy); Thunar, Nemo: (copy 1)
    r"[^/]* \((?:another |\d+(?:st|nd|rd|th) )?copy(?: \d+)?\)\.py",
    "Copy of *.py": r"Copy of [^/]*\.py",  # Google Drive, Explorer
    "* (Kopie).py, * - Copie.py, …": rf"[^/]* (?:- )?\(?(?:{_COPY})(?: \(?\d+)?\)?\.py",
    "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …":  # nano, Subversion, patch, dpkg, rpm
    r"[^/]*\.(?:py|ya?ml|toml)\.(?:old|mine|r\d+|save(?:\.\d+)?|orig\.\d+|bak\w+|(?:dpkg|rpm|ucf)-?\w+)",
    "*.bak.py, *.old.py, *.orig.py": r"[^/]*\.(?:bak|old|orig|save)\.py",
    "~$*": r"~\$[^/]*",  # office programs
    "*.conflict, *.conflict1*":  # rclone bisync, Unison
    r"[^/]*\.conflict(?:\d[^/]*)?",
    "@eaDir/": r"@eaDir/",  # Synology
    "*_BACKUP_*, *_BASE_*, *_LOCAL_*, *_REMOTE_*":  # git mergetool
    r"[^/]*_(?:BACKUP|BASE|LOCAL|REMOTE)_\d+(?:\.[^/]*)?",
    "node_modules/": r"node_modules/",
    "venv/": r"venv/",
    "tests/*/": r"(?:(?<![^/])tests?/)[^/]+/",  # fixtures, which may be of another Python
    "*{{*": r"[^/]*\{\{[^/]*",  # skeletons, as of Cookiecutter: {{name}}.py
}  # fmt: skip
"""Paths that people keep beside a plugin's source; `ignore: ['!venv/']` brings one back."""

ENVIRONMENT = "pyvenv.cfg"
"""The file that makes a folder a virtual environment, whatever its name."""

_ANY_PASSING = re.compile("|".join(_PASSING.values()), re.DOTALL)
_ANY_BESIDE = re.compile(f"(?:.*/)?(?:{'|'.join(_BESIDE.values())})/?", re.DOTALL)


def is_part(name: str) -> bool:
    """Tell whether a file or folder of this name can be part of a plugin's source."""
    return _ANY_PASSING.fullmatch(name) is None


def is_environment(folder: str) -> bool:
    """Tell whether a folder is a virtual environment."""
    return os.path.lexists(os.path.join(folder, ENVIRONMENT))  # noqa: PTH118 - for each folder


def read_patterns(patterns: Sequence[str]) -> "GitIgnoreSpec":
    """Read patterns of gitignore's syntax.

    Raises:
        ValueError: with the one that is none, and why.
    """
    from pathspec import GitIgnoreSpec  # 30 ms, for the plugins that use it

    for pattern in patterns:
        wildcards = sum(1 if part == "**" else part.count("*") for part in pattern.split("/"))
        if wildcards > MAX_WILDCARDS:
            raise ValueError(
                f"{pattern!r} with {wildcards} wildcards, expected {MAX_WILDCARDS} at most; write "
                "several patterns"
            )
        try:
            GitIgnoreSpec.from_lines([pattern])
        except (ValueError, re.error) as error:
            raise ValueError(f"{pattern!r}, which is no pattern of gitignore: {error}") from None
    return GitIgnoreSpec.from_lines(patterns)


class Rules:
    """What one plugin's folder leaves out; the last of its own patterns that fits decides."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """Make them; ValueError if a pattern is none."""
        self._patterns = tuple(patterns)
        self._spec = read_patterns(self._patterns) if patterns else None

    def leave_out(self, path: str, *, folder: bool = False) -> bool:
        """Tell whether a file or a folder is left out.

        Args:
            path: its path within the plugin's folder, none of whose folders is left out.
            folder: whether it is a folder.
        """
        if not is_part(path.rpartition("/")[2]):
            return True
        if self._spec is not None and path != MANIFEST_NAME:
            kept = self._spec.check_file(f"{path}/" if folder else path).include
            if kept is not None:
                return kept
        return _ANY_BESIDE.fullmatch(f"{path}/" if folder else path) is not None

    def leave_out_below(self, path: str) -> bool:
        """Tell whether a path is left out, or lies in a folder that is; it may be either."""
        parts = path.split("/")
        above = ("/".join(parts[:n]) for n in range(1, len(parts) + 1))
        return any(self.leave_out(part, folder=True) for part in above) or self.leave_out(path)

    def pattern_for(self, path: str, *, folder: bool = False) -> str:
        """Return the pattern that leaves a path out; for one of which `leave_out` is true."""
        name = path.rpartition("/")[2]
        for pattern, expression in _PASSING.items():
            if re.fullmatch(expression, name, re.DOTALL):
                return pattern
        shown = f"{path}/" if folder else path
        if self._spec is not None:
            checked = self._spec.check_file(shown)
            if checked.include and checked.index is not None:
                return self._patterns[checked.index]
        for pattern, expression in _BESIDE.items():
            if re.fullmatch(f"(?:.*/)?(?:{expression})/?", shown, re.DOTALL):
                return pattern
        return ENVIRONMENT


DEFAULT = Rules()
