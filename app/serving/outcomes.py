"""What came of each row, said wherever it is asked for: log, conditions, database, host."""

import logging
from typing import Any

from app.errors import PluginError
from app.loading.loader import LoadedPlugin
from app.records import ACTIVE, ServedRow
from app.serving.last_known_good import LastKnownGood
from app.serving.load_queue import LoadResult
from app.serving.recorder import Recorder
from app.serving.regressions import Regressions
from app.serving.shortfalls import Shortfalls
from app.worker_records import PASSES, LoadRecord

log = logging.getLogger(__name__)


class Outcomes:
    """Tells what this process serves of a row, and why not what the row says.

    `serving` is what is served of the plugin, None if nothing is.
    """

    def __init__(
        self,
        shortfalls: Shortfalls,
        recorder: Recorder,
        last_known_good: LastKnownGood,
        regressions: Regressions,
    ) -> None:
        self._shortfalls = shortfalls
        self._recorder = recorder
        self._last_known_good = last_known_good
        self._regressions = regressions

    def loading(self, row: ServedRow, serving: LoadedPlugin | None, seconds: float) -> None:
        """Tell that a load takes longer than `seconds`."""
        log.warning(
            "%s: generation %d is still loading after %g s; the others go ahead",
            row.name,
            row.generation,
            seconds,
        )
        reason = f"generation {row.generation} is still loading"
        self._shortfalls.hold(row, reason, serving.generation if serving else None)
        self._record(row, "loading", serving)

    def waiting(
        self, row: ServedRow, serving: LoadedPlugin | None, why: str, *, asked: bool
    ) -> None:
        """Tell that a generation waits for fresh processes; the log has it once.

        Args:
            row: what is to be served.
            serving: what is served of the plugin, None if nothing is.
            why: why this process cannot load it.
            asked: whether there is a master that starts others.
        """
        self._shortfalls.forget(row.name)
        said = (
            "fresh workers" if asked else "a restart, because no master of Benana's starts others"
        )
        reason = f"generation {row.generation} waits for {said}{': ' if why else ''}{why}"
        if self._shortfalls.hold(row, reason, serving.generation if serving else None):
            log.info("%s: %s", row.name, reason)
            self._regressions.leaves(row)
        self._record(row, "loading", serving)

    def served(self, plugin: LoadedPlugin, result: LoadResult) -> None:
        """Tell that a generation is served."""
        self._shortfalls.end(plugin.name)
        log.info(
            "%s: serving generation %d, %d routes, loaded in %.0f ms",
            plugin.name,
            plugin.generation,
            len(plugin.routes),
            result.milliseconds,
        )
        self._record(result.row, "serving", plugin)
        self._regressions.served(plugin, result.row)
        self._last_known_good.remember(result.row)

    def failed(self, row: ServedRow, error: PluginError, serving: LoadedPlugin | None) -> None:
        """Tell that a generation is not served; the log has it once."""
        generation = serving.generation if serving else None
        is_new = self._shortfalls.fail(row, error, generation)
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

    def _record(
        self,
        row: ServedRow,
        state: str,
        serving: LoadedPlugin | None,
        *,
        error: PluginError | None = None,
    ) -> None:
        record = LoadRecord(
            row.name,
            row.id,
            serving.generation if serving else None,
            row.generation,
            state,
            _error_of_load(error, row.generation) if error else None,
        )
        self._recorder.note([record])


def _error_of_load(error: PluginError, generation: int) -> dict[str, Any]:
    """Return an error of a load as it is recorded."""
    record = {**error.as_record(), "generation": generation}
    return {**record, PASSES: True} if error.passes else record
