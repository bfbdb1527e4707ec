"""The plugins' root at a first start: it is made, and a person is told that it is empty."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from app.publishing.discovery import list_folders
from app.publishing.host_state import HostState
from app.settings import Settings


def make_first_root(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Make the plugins' root where a server is started in a new folder.

    Not one that BENANA_PLUGINS_DIR names, which may be a typing error or a disk that is not
    mounted, and not where plugins were published before: there it is missing, and that is said.
    Nothing is raised: publishing says what is wrong with a root that cannot be used.
    """
    named = bool(environ.get("BENANA_PLUGINS_DIR"))
    if settings.watch and not named and HostState(settings.artifacts_dir).is_new:
        with suppress(OSError):
            settings.plugins_dir.mkdir()


def root_text(root: Path, *, watch: bool) -> str:
    """Return where the plugins are, and how to come by the first one.

    Args:
        root: the plugins' root.
        watch: whether this host publishes what is there.
    """
    with suppress(OSError):
        if watch and not list_folders(root):
            return f"plugins go into {root}; there is none yet: `benana new hello` writes one"
    return f"plugins in {root}"
