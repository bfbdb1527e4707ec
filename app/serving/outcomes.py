"""What came of each row, said wherever it is asked for: log, conditions, database, host."""

import logging
from typing import Any

from app.database.repository import Repository
from app.errors import DatabaseError, LoadError, PluginError
from app.loading.loader import LoadedPlugin
from app.records import ACTIVE, Endpoint, ServedRow
from app.serving.last_known_good import LastKnownGood
from app.serving.live_plugins import Served
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.serving.row_loader import LoadResult
from app.serving.shortfalls import Shortfalls
from app.worker_records import PASSES, LoadRecord

log = logging.getLogger(__name__)


class Outcomes:
    """Tells what this process serves of a row, and why not what the row says.

    `serving` is the generation that is served of the plugin, None if nothing is.
    """

    def __init__(
        self,
        repository: Repository,
        shortfalls: Shortfalls,
        recorder: Recorder,
        last_known_good: LastKnownGood,
        regressions: Regressions,
    ) -> None:
        self._repository = repository
        self._shortfalls = shortfalls
        self._recorder = recorder
        self._last_known_good = last_known_good
        self._regressions = regressions

    def as_wanted(self, row: ServedRow) -> None:
        """Tell that what a row says is served; the row then says no more that it cannot be."""
        self._shortfalls.end(row.name)
        if row.watched:
            self._regressions.watched(row)
        if row.load_error:
            try:
                self._repository.forget_load_error(row)
            except DatabaseError as error:
                log.debug("%s: its error stays until the next comparison: %s", row.name, error)

    def loading(
        self, row: ServedRow, serving: int | None, seconds: float, *, owner: bool = False
    ) -> None:
        """Tell that a load takes longer than `seconds`; `owner` as of `served`."""
        log.warning(
            "%s: generation %d is still loading after %g s; the others go ahead",
            row.name,
            row.generation,
            seconds,
        )
        reason = f"generation {row.generation} is still loading"
        if row.exclusive is not None:
            reason += ", or waits for the process that runs it"
        self._shortfalls.hold(row, reason, serving)
        waits = LoadError(row.name, f"{reason}, after {seconds:g} s", transient=True)
        self._record(row, "loading", serving, error=waits, owner=owner)

    def waiting(self, row: ServedRow, serving: int | None, why: str, *, asked: bool) -> None:
        """Tell that a generation waits for fresh processes; the log has it once.

        Args:
            row: what is to be served.
            serving: the generation that is served of the plugin, None if nothing is.
            why: why this process cannot load it.
            asked: whether there is a master that starts others.
        """
        self._shortfalls.forget(row.name)
        said = (
            "fresh workers" if asked else "a restart, because no master of Benana's starts others"
        )
        reason = f"generation {row.generation} waits for {said}{': ' if why else ''}{why}"
        if self._shortfalls.hold(row, reason, serving):
            log.info("%s: %s", row.name, reason)
            self._regressions.leaves(row)
        self._record(row, "loading", serving)

    def served(self, plugin: Served, result: LoadResult, *, owner: bool = False) -> None:
        """Tell that a generation is served.

        Args:
            plugin: what is in the table.
            result: what came of its load.
            owner: whether this process alone runs it.
        """
        self.as_wanted(result.row)
        if owner and isinstance(plugin, LoadedPlugin):
            self._record_endpoints(result.row, plugin)
        log.info(
            "%s: %s generation %d, %d routes, loaded in %.0f ms",
            plugin.name,
            "serving" if isinstance(plugin, LoadedPlugin) else "passing on to",
            plugin.generation,
            len(plugin.routes),
            result.milliseconds,
        )
        self._record(result.row, "serving", plugin.generation, owner=owner)
        if isinstance(plugin, LoadedPlugin):
            self._regressions.served(plugin, result.row)
        self._last_known_good.remember(result.row)

    def went_back(self, plugin: Served, result: LoadResult, *, owner: bool) -> None:
        """Tell that the generation before one that failed is served again, and stays.

        The failed one is not tried again by itself: each try would stop what serves now.
        """
        log.warning("%s: generation %d serves again", plugin.name, plugin.generation)
        failure = self._shortfalls.settle(plugin.name, plugin.generation)
        if failure is None:
            self._record(result.row, "serving", plugin.generation, owner=owner)
            return
        self._record(failure.row, "failed", plugin.generation, error=failure.error, owner=owner)

    def failed(self, row: ServedRow, error: PluginError, serving: int | None) -> None:
        """Tell that a generation is not served; the log has it once."""
        is_new = self._shortfalls.fail(row, error, serving)
        self._record(row, "failed", serving, error=error)
        if is_new:
            log.error("%s; generation %d is not served", error, row.generation)

    def unwanted(self, name: str, row: ServedRow | None) -> None:
        """Tell that nothing is to be served of a plugin: its row says so, or is gone."""
        self._regressions.forget(name)
        if row is not None and row.status == ACTIVE and row.unpublished:
            self._shortfalls.forget(name)
            reason = "it is active, and its source was never published"
            self._shortfalls.hold(row, reason, None)
        else:
            self._shortfalls.end(name)
        if row is not None:
            self._record(row, "unloaded", None)
        else:
            self._recorder.forget(name)

    def _record_endpoints(self, row: ServedRow, plugin: LoadedPlugin) -> None:
        """Have the row say what was registered, where its trial could not come so far."""
        known = [Endpoint(*parts) for parts in row.endpoints or ()]
        found = [endpoint for route in plugin.routes for endpoint in route.endpoints]
        if set(known) == set(found) or row.digest is None:
            return
        try:
            self._repository.endpoints.record(row, row.digest, found)
        except DatabaseError as error:
            log.warning("%s: its routes are not recorded: %s", row.name, error)

    def _record(
        self,
        row: ServedRow,
        state: str,
        serving: int | None,
        *,
        error: PluginError | None = None,
        owner: bool = False,
    ) -> None:
        record = LoadRecord(
            row.name,
            row.id,
            serving,
            row.generation,
            state,
            _error_of_load(error, row.generation) if error else None,
            owner,
        )
        self._recorder.note([record])


def _error_of_load(error: PluginError, generation: int) -> dict[str, Any]:
    """Return an error of a load as it is recorded."""
    record = {**error.as_record(), "generation": generation}
    return {**record, PASSES: True} if error.passes else record
