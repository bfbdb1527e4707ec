"""An operator's reload of a plugin: from its folder, or from its archive where there is none."""

import socket
from dataclasses import dataclass
from pathlib import Path

from app.database.repository import Repository
from app.errors import DiscoveryError, UnknownPluginError
from app.publishing.publisher import Publisher
from app.records import PluginRow, ServedRow


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload has come to.

    `row` is what is to be served now; `note` is what else is to be said, empty after a publish.
    """

    row: ServedRow
    note: str = ""


def reload_plugin(name: str, root: Path, publisher: Publisher, rows: Repository) -> Reload:
    """Compile, try and publish a plugin again, also if its source did not change.

    On a host without the plugin's folder, every process loads the registered archive again.

    Args:
        name: the plugin.
        root: the plugins' root.
        publisher: publishes its folder.
        rows: has what is registered.

    Raises:
        UnknownPluginError: there is neither a row nor a folder.
        PluginError: the source cannot be published; the old version serves on. Or there is neither
            a folder nor an archive.
    """
    note = ""
    if publisher.has_folder(name):
        publisher.publish(name)
        served = next(iter(rows.served_rows([name])), None)
    else:
        note = _without_folder(name, root, rows.find_row(name))
        served = rows.raise_generation(name)
    if served is None:
        raise UnknownPluginError(name)
    return Reload(served, note)


def _without_folder(name: str, root: Path, row: PluginRow | None) -> str:
    if row is None:
        raise UnknownPluginError(name)
    missing = f"{root} of this host ({socket.gethostname()}) has no folder of it"
    if row.binary_path is None:
        raise DiscoveryError(name, f"{missing}, and no archive of it is registered")
    return f"Nothing was compiled: {missing}. Its registered archive is loaded again."
