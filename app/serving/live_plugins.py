"""The plugins that a process serves now, and their one change: a new table, by one assignment."""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.errors import ConflictError
from app.isolation.stand_in import StandIn
from app.loading.loader import LoadedPlugin
from app.records import ServedRow
from app.routing.application import LiveApp
from app.routing.plugin_app import answer_by_own
from app.routing.table import TableBuilder
from app.serving.reclaimer import Reclaimer

log = logging.getLogger(__name__)

Served = LoadedPlugin | StandIn
"""What stands in the table for a plugin: itself, or who passes its requests on."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What came of a swap: who is served now, and whom the table refused, each with why.

    `ends` are set when what was retired by it has been cleaned up, by the plugin's name.
    """

    accepted: list[Served]
    refused: list[tuple[Served, ConflictError]]
    ends: dict[str, threading.Event] = field(default_factory=dict)


class LivePlugins:
    """What is loaded and in the route table; for the one thread that swaps.

    `swap` makes a change of any size at once; what it replaces is retired, to be cleaned up after
    its last request.
    """

    def __init__(self, app: LiveApp, reclaimer: Reclaimer) -> None:
        self._app = app
        self._reclaimer = reclaimer
        self._plugins: dict[str, Served] = {}

    def __len__(self) -> int:
        """Return how many plugins are served, in whatever generation."""
        return len(self._plugins)

    def __contains__(self, name: object) -> bool:
        """Tell whether a plugin is served, in whatever generation."""
        return name in self._plugins

    def names(self) -> set[str]:
        """Return the names of the plugins that are served."""
        return set(self._plugins)

    def find(self, name: str) -> Served | None:
        """Return what is served of a plugin, None if nothing is."""
        return self._plugins.get(name)

    def serves(self, row: ServedRow) -> bool:
        """Tell whether what is served of a plugin is what its row says."""
        plugin = self._plugins.get(row.name)
        return plugin is not None and (plugin.row_id, plugin.generation) == (row.id, row.generation)

    def swap(
        self, leaving: list[Served], arrived: list[Served], drain_seconds: float | None = None
    ) -> Swap:
        """Put a new table in the place of the current one, and retire what it does not hold.

        Args:
            leaving: plugins to unload.
            arrived: generations to serve; one that conflicts with another plugin's routes is
                retired instead, and leaves its plugin's old generation in place.
            drain_seconds: how long requests may hold up the cleanup of what is retired, where that
                is not what is usual.
        """
        builder = self._app.table.builder()
        for plugin in leaving:
            builder.remove(plugin.name)
        for plugin in arrived:
            if isinstance(plugin, LoadedPlugin):
                answer_by_own(self._app, plugin.own, plugin.routes)
        swap = Swap(*_fit(builder, arrived))
        replaced = [self._plugins[p.name] for p in swap.accepted if p.name in self._plugins]
        swap.ends.update(self._publish(builder, [*leaving, *replaced], drain_seconds))
        for plugin in leaving:
            del self._plugins[plugin.name]
            log.info("%s: unloaded generation %d", plugin.name, plugin.generation)
        self._plugins.update((plugin.name, plugin) for plugin in swap.accepted)
        swap.ends.update(self.retire(plugin for plugin, _ in swap.refused))
        return swap

    def retire(
        self, plugins: Iterable[Served], drain_seconds: float | None = None
    ) -> dict[str, threading.Event]:
        """Have generations cleaned up that no table holds.

        Returns:
            What is set when they are, by the plugin's name; not of those that stood in for a
            plugin, in which requests may wait for what comes after them.
        """
        ends = {}
        for plugin in plugins:
            end = self._reclaimer.retire(plugin, self._app.table.number, drain_seconds)
            if isinstance(plugin, LoadedPlugin):
                ends[plugin.name] = end
        return ends

    def unload_all(self) -> None:
        """Take all plugins out of the table and retire them; for the end of the process."""
        builder = self._app.table.builder()
        for name in self._plugins:
            builder.remove(name)
        self._publish(builder, list(self._plugins.values()))
        self._plugins.clear()

    def _publish(
        self, builder: TableBuilder, old: list[Served], drain_seconds: float | None = None
    ) -> dict[str, threading.Event]:
        self._app.swap(builder.build())
        for plugin in old:
            plugin.cancel()
            self._app.running.finish_streams(plugin.key)
        return self.retire(old, drain_seconds)


def _fit(
    builder: TableBuilder, arrived: list[Served]
) -> tuple[list[Served], list[tuple[Served, ConflictError]]]:
    """Put arrivals into a table; one that conflicts leaves its plugin's old routes in place.

    A route may move from one plugin to another within a batch, so what is refused is tried again
    as long as others still make room.
    """
    accepted: list[Served] = []
    waiting = [(plugin, ConflictError(plugin.name, "")) for plugin in arrived]
    while waiting:
        refused = []
        for plugin, _ in waiting:
            old = builder.remove(plugin.name)
            try:
                builder.add(plugin.name, plugin.routes)
            except ConflictError as error:
                builder.add(plugin.name, old)
                refused.append((plugin, error))
            else:
                accepted.append(plugin)
        if len(refused) == len(waiting):
            return accepted, refused
        waiting = refused
    return accepted, []
