"""What is wrong with a plugin's newest source, recorded beside its row."""

import logging
from pathlib import Path

from app.database.repository import Repository
from app.errors import DatabaseError, DatabaseReadOnlyError, DatabaseRefusedError, PluginError
from app.publishing.attempt import PublishAttempt
from app.publishing.refusals import Refusals
from app.records import PluginRow

log = logging.getLogger(__name__)


class ErrorRecords:
    """Records errors; safe to use from several threads."""

    def __init__(self, repository: Repository, refusals: Refusals) -> None:
        self._repository = repository
        self._refusals = refusals
        self._lost: dict[str, str] = {}
        """The errors that an outage kept from being recorded, by plugin: the log says each once."""

    def write(
        self,
        name: str,
        row: PluginRow | None,
        folder: Path,
        attempt: PublishAttempt,
        error: PluginError,
    ) -> None:
        """Record an error in the plugin's row, or where it has none, among the failures.

        Where the row may not be changed, as by a trigger that refuses it, the error is recorded
        among the failures, too.

        What is the trouble of this host alone, as a full disk, is not written into the row, which
        is everybody's: that is a condition of the host. Where the database does not take an error,
        `attempt.unrecorded` says why.

        Raises:
            DatabaseUnavailableError: nothing was recorded; try it again later.
        """
        try:
            if row is not None and error.of_host:
                log.debug("%s: not recorded in the row: %s", name, error)
            elif row is not None:
                self._repository.record_error(row, error.as_record())
            else:
                self._repository.failures.record(name, str(folder), error.as_record())
            self._lost.pop(name, None)
        except (DatabaseRefusedError, DatabaseReadOnlyError) as refusal:
            if row is None or not self._write_beside(name, folder, error):
                attempt.unrecorded = str(refusal)
        except DatabaseError:
            self._refusals.give_up(name)  # so that it is recorded when it is tried again
            if self._lost.get(name) != str(error):
                self._lost[name] = str(error)
                log.warning("%s", error)  # it would be lost: what is raised is the database's
            raise

    def _write_beside(self, name: str, folder: Path, error: PluginError) -> bool:
        try:
            self._repository.failures.record(name, str(folder), error.as_record())
        except (DatabaseRefusedError, DatabaseReadOnlyError):
            return False
        return True
