"""The context that a plugin is given: its config, logger, database and data folder."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from app.loading.logging_state import PLUGIN_LOGGER
from app.plugin import PluginContext

MakeContext = Callable[[str, dict[str, Any]], PluginContext]
"""Makes a plugin's context from its name and the `config` of its manifest."""


class _Context(PluginContext):
    """A context that makes its data folder at the first use of `data_dir`.

    Not every plugin needs one, and not every host has a disk that can be written to.
    """

    __slots__ = ()

    @property
    def data_dir(self) -> Path:
        folder = cast(Path, _DATA_DIR.__get__(self))
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the data folder cannot be made ({error.strerror}); make it writable or set "
                "BENANA_DATA_DIR",
                str(folder),
            ) from None
        return folder

    @data_dir.setter
    def data_dir(self, folder: Path) -> None:  # for `__init__` alone: the class is frozen
        _DATA_DIR.__set__(self, folder)


_DATA_DIR: Any = vars(PluginContext)["data_dir"]
"""The slot of `PluginContext` that holds the folder's path."""


def make_context_factory(
    data_dir: Path, database_of: Callable[[str], Callable[[], Any]], *, trial: bool = False
) -> MakeContext:
    """Return the function that makes plugins' contexts in this process.

    Args:
        data_dir: the server's data folder; each plugin gets `plugins/<name>` in it.
        database_of: returns a plugin's `context.database`, for its name.
        trial: whether plugins are only tried in this process.
    """

    def make(name: str, config: dict[str, Any]) -> PluginContext:
        return _Context(
            name=name,
            config=config,
            logger=logging.getLogger(f"{PLUGIN_LOGGER}.{name}"),
            database=database_of(name),
            data_dir=data_dir / "plugins" / name,
            trial=trial,
        )

    return make
