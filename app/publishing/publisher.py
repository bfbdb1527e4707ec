"""Discover → compile → try → save, for one plugin or for all."""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from app.database.repository import Repository
from app.errors import (
    ArtifactError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    DiscoveryError,
    PluginError,
    SupersededError,
)
from app.plugin import PluginMetadata
from app.publishing.discovery import MAX_MODULE_MB, inside, list_folders, read_source
from app.publishing.look import SAVE_SECONDS, Look
from app.publishing.requirements import installed
from app.publishing.seen import SeenSources
from app.publishing.trial import TrialRunner
from app.records import (
    ACTIVE,
    INACTIVE,
    Artifact,
    PluginRow,
    PluginSource,
    TrialReport,
    artifact_digest,
    artifact_name,
)
from app.serving.artifacts import store_artifact
from app.serving.routes import find_conflict

log = logging.getLogger(__name__)

MAX_PATH_LENGTH = 500
SCAN_THREADS = 4


class Publisher:
    """Makes the rows follow the folders; safe to use from several threads and processes."""

    def __init__(
        self,
        plugins_dir: Path,
        artifacts_dir: Path,
        repository: Repository,
        trial: TrialRunner,
        max_module_mb: int = MAX_MODULE_MB,
    ) -> None:
        self._root = plugins_dir
        self._max_module_mb = max_module_mb
        self._artifacts_dir = artifacts_dir
        self._repository = repository
        self._trial = trial
        self._seen = SeenSources(artifacts_dir)
        self._failed: dict[str, str] = {}
        """The digests of the sources that this process tried last and in vain, by plugin."""
        self._unrecorded: dict[str, str] = {}
        """The errors that could not be recorded, by plugin: the log says each once."""
        self._refused: set[str] = set()
        """The plugins whose source this process has refused last."""
        installed.look()  # what is imported from now on is what is installed now

    def has_folder(self, name: str) -> bool:
        """Tell whether a plugin has its source folder on this host."""
        row = self._repository.find_row(name)
        try:
            return self._folder_of(name, row).is_dir()
        except DiscoveryError:
            return False

    def prepare(self) -> None:
        """Start what the first publish would have to wait for."""
        self._trial.prepare()

    def publish(self, name: str) -> None:
        """Publish a plugin, whether its source changed or not.

        Raises:
            PluginError: the source cannot be published; the error is recorded beside the row, and
                what was served is served on.
            DatabaseUnavailableError: nothing was recorded; publish again later.
            DatabaseRefusedError: the row cannot be written; recorded, if the database takes that.
        """
        self._publish(name, self._repository.find_row(name), force=True)

    def follow(self, name: str, look: Look) -> bool:
        """Make a plugin's row follow its folder: publish what changed, unregister what is gone.

        Args:
            name: the plugin's name.
            look: what is known of the folder while it is looked at.

        Returns:
            Whether it was published; not if it is what was last published, or refused.

        Raises:
            PluginError: as `publish`.
            DatabaseUnavailableError: as `publish`.
            DatabaseRefusedError: as `publish`.
            SupersededError: nothing was recorded, because the folder changed again.
        """
        row = self._repository.find_row(name)
        if row is not None and not look.patient and self._repository.is_locked(row):
            raise DatabaseBusyError(f"the row of {name} is still locked")
        if not self._folder_is_gone(name, row):
            return self._publish(name, row, look)
        if not self._seen.is_unmounted(self._root):
            self._remove(name)
        return False

    def _folder_is_gone(self, name: str, row: PluginRow | None) -> bool:
        if row is not None and row.unpublished:
            return False  # the row asks for it: that it is missing is an error to show
        return self._root.is_dir() and not self._folder_of(name, row).is_dir()

    def _remove(self, name: str) -> None:
        """Unregister a plugin whose folder is gone from this host, if this host published it."""
        if self._seen.digest_of(name) is not None:
            if self._repository.unregister(name, str(self._root / name)):
                log.info("%s: its folder is gone, unregistered", name)
            self._seen.forget(name)
        self._repository.forget_failure(name)

    def names_of(self, folder: str) -> list[str]:
        """Return the plugins whose source is a folder of the plugins' root, or lies within it."""
        return self._repository.names_of_source(str(self._root / folder)) or [folder]

    def unpublished(self) -> list[str]:
        """Return the plugins whose row asks for a source to be compiled."""
        return self._repository.unpublished_names()

    def forget_refusals(self) -> list[str]:
        """Return the plugins that were refused, and try their sources once more when asked to.

        For a change of the environment: what they need may be there now.
        """
        names = sorted(self._refused)
        for name in names:
            self._failed.pop(name, None)
        self._refused.difference_update(names)
        return names

    def scan(self, *, at_start: bool = False) -> list[str]:
        """Look at every folder and every row once, and publish what wants it.

        At the server's start, plugins whose row was deleted are registered again; a scan that
        could not be completed then is made up for by the next one.

        Returns:
            The plugins that somebody's lock keeps from following their folder: they are to be
            looked at again.

        Raises:
            OSError: the plugins' root is gone or unreadable; nothing was unregistered.
            DatabaseError: the scan is not complete.
        """
        restore = self._seen.begin_start() if at_start else self._seen.start_is_pending()
        if at_start or restore:
            self._repository.apply_schema()  # later, a table that is missing is being restored
        folders = list_folders(self._root)
        rows = {row.name: row for row in self._repository.list_rows()}
        sources = {row.source_path: name for name, row in rows.items() if row.source_path}
        names = {sources.get(str(self._root / folder), folder) for folder in folders}
        names |= {name for name, row in rows.items() if row.unpublished}
        with ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="benana-scan") as pool:
            found = dict(
                zip(
                    names,
                    pool.map(lambda name: self._scan_one(name, rows.get(name), restore), names),
                    strict=True,
                )
            )
        locked = [name for name, published in found.items() if published is None]
        if not self._seen.is_unmounted(self._root):
            locked += self._forget_missing(set(folders))
        if folders:
            self._seen.record_root(self._root)
        if not locked:
            self._seen.end_start()
        published = sum(map(bool, found.values()))
        if published:
            log.info("published %d of %d plugins", published, len(names))
        return locked

    def _scan_one(self, name: str, row: PluginRow | None, restore: bool) -> bool | None:
        """Publish a plugin if it wants it; return whether, or None if somebody's lock is there."""
        try:
            return self._publish(name, row, restore=restore)
        except (PluginError, DatabaseRefusedError) as error:
            log.warning("%s", error)
        except SupersededError:
            log.debug("%s changes while it is looked at", name)  # its event is on the way
        except DatabaseBusyError:
            return None
        except DatabaseUnavailableError:
            raise
        except Exception:
            # A fault of ours must not keep the other folders from being looked at.
            log.exception("%s: publishing failed", name)
        return False

    def _forget_missing(self, folders: set[str]) -> list[str]:
        """Forget the folders that are gone; return the plugins that somebody's lock keeps."""
        locked = []
        for name in self._seen.plugins() - folders:
            try:
                row = self._repository.find_row(name)
                if self._folder_is_gone(name, row):
                    self._remove(name)
            except DatabaseBusyError:
                locked.append(name)
        for failure in self._repository.list_failures():
            folder = Path(failure.source_path)
            if folder.parent == self._root and not folder.is_dir():
                try:
                    self._repository.forget_failure(failure.name)
                except DatabaseBusyError:
                    locked.append(failure.name)
        return locked

    def _publish(
        self,
        name: str,
        row: PluginRow | None,
        look: Look | None = None,
        *,
        force: bool = False,
        restore: bool = False,
    ) -> bool:
        look = look or Look()
        began = time.perf_counter()
        folder = self._root / name
        source = None
        try:
            folder = self._folder_of(name, row)
            source = self._read(folder, name)
            if not force and not self._is_wanted(row, source, restore):
                self._refused.discard(name)
                self._remember(source)
                if row is not None and row.error is not None:
                    self._repository.record_error(row, None)
                return False
            if not force and self._failed.get(name) == source.digest:
                return False  # it was tried and refused; events come in twos and threes
            self._failed[name] = source.digest
            artifact, report = self._trial.run(source, look.superseded)
            with self._stored(artifact) as binary_path:
                generation = self._save(source, artifact, report, binary_path, look, force)
            self._failed.pop(name, None)
            self._refused.discard(name)
            self._remember(source)
        except PluginError as error:
            if not look.settle() or self._has_changed(name, row, source):
                self._failed.pop(name, None)
                raise SupersededError("the source changed while it was looked at") from None
            self._refused.add(name)
            self._record(name, row, folder, error)
            raise
        except (DatabaseUnavailableError, SupersededError):
            self._failed.pop(name, None)  # it was not tried to the end
            raise
        except DatabaseRefusedError as error:
            error.plugin = name
            self._record(name, row, folder, PluginError(name, error.message, phase="save"))
            raise
        log.info(
            "%s: published generation %d, version %s (%s), in %.0f ms",
            name,
            generation,
            report.metadata.version,
            source.digest[:12],
            (time.perf_counter() - began) * 1000,
        )
        return True

    def _read(self, folder: Path, name: str) -> PluginSource:
        return read_source(self._root, folder, name, self._max_module_mb)

    def _has_changed(self, name: str, row: PluginRow | None, source: PluginSource | None) -> bool:
        """Tell whether a folder is not any more what was refused: it was read half-written."""
        try:
            now = self._read(self._folder_of(name, row), name)
        except PluginError:
            return source is not None
        return source is None or now.digest != source.digest

    def _folder_of(self, name: str, row: PluginRow | None) -> Path:
        """Return a plugin's source folder on this host.

        Raises:
            DiscoveryError: the row asks for a source outside of the plugins' root.
        """
        default = self._root / name
        if row is None or row.source_path is None:
            return default
        named = Path(os.path.abspath(row.source_path))  # noqa: PTH100 - symlinks are kept
        if inside(self._root, named) and named != self._root:
            return named
        served = row.binary_path is not None and artifact_digest(name, row.binary_path) is not None
        if row.unpublished and (served or not default.is_dir()):
            raise DiscoveryError(
                name,
                f"source_path is {row.source_path!r}, expected a folder inside of {self._root}",
            )
        return default  # another host's path, or one of the Go design

    def _is_wanted(self, row: PluginRow | None, source: PluginSource, restore: bool) -> bool:
        seen = self._seen.digest_of(source.name)
        if row is None:
            return restore or source.digest != seen
        if row.unpublished:
            return True
        return source.digest not in {seen, row.source_digest}

    def _remember(self, source: PluginSource) -> None:
        if self._seen.digest_of(source.name) == source.digest:
            return
        try:
            self._seen.record_root(self._root)
            self._seen.record(source.name, source.digest)
        except OSError as error:
            # It costs one look at the next start, and nothing else.
            log.warning(
                "%s: %s cannot be written: %s", source.name, self._artifacts_dir, error.strerror
            )

    def _save(
        self,
        source: PluginSource,
        artifact: Artifact,
        report: TrialReport,
        binary_path: Path,
        look: Look,
        force: bool,
    ) -> int:
        for path in (binary_path, source.folder):
            if len(str(path)) > MAX_PATH_LENGTH:
                raise ArtifactError(
                    source.name,
                    f"the path {str(path)[:60]}… has {len(str(path))} characters, expected "
                    f"{MAX_PATH_LENGTH} at most",
                )
        report = replace(report, metadata=_completed(report.metadata, source))
        templates = list(dict.fromkeys(endpoint.path for endpoint in report.endpoints))
        with self._repository.publishing() as publication:
            kept = publication.keep_version(artifact, report, wait=False)
            if not look.settle(SAVE_SECONDS):
                raise SupersededError("the source changed while it was tried")
            row = publication.lock_row(source.name)
            if not force and row is not None and row.source_digest == source.digest:
                return row.generation  # another process published the same meanwhile
            if not kept:  # another process was about to, and did not
                publication.keep_version(artifact, report)
            others = publication.other_templates(source.name, templates)
            # By themselves they were compared in the trial.
            conflict = find_conflict(source.name, templates, others) if others else None
            if conflict is not None:
                raise conflict
            _, generation = publication.save(
                row,
                report.metadata,
                report.endpoints,
                source_path=str(source.folder),
                binary_path=str(binary_path),
                source_digest=source.digest,
                status=ACTIVE if source.manifest.enabled else INACTIVE,
            )
            pruned = publication.prune_versions(source.name)
            if not look.settle():
                raise SupersededError("the source changed while it was tried")
        self._drop_archives(artifact_name(source.name, digest) for digest in pruned)
        return generation

    @contextlib.contextmanager
    def _stored(self, artifact: Artifact) -> Iterator[Path]:
        """Store an archive and give its path; where the block fails, it is not left behind."""
        known = (self._artifacts_dir / artifact.file_name).exists()
        binary_path = store_artifact(artifact, self._artifacts_dir)
        try:
            yield binary_path
        except (PluginError, SupersededError, DatabaseError):
            if not known:  # should it be registered after all, it is fetched from the database
                self._drop_archives([artifact.file_name])
            raise

    def _drop_archives(self, file_names: Iterable[str]) -> None:
        for file_name in file_names:
            try:
                (self._artifacts_dir / file_name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", file_name, error.strerror)

    def _record(self, name: str, row: PluginRow | None, folder: Path, error: PluginError) -> None:
        try:
            if row is not None:
                self._repository.record_error(row, error.as_record())
            else:
                self._repository.record_failure(name, str(folder), error.as_record())
            self._unrecorded.pop(name, None)
        except DatabaseError:
            self._failed.pop(name, None)
            if self._unrecorded.get(name) != str(error):
                self._unrecorded[name] = str(error)
                log.warning("%s", error)  # it would be lost: what is raised is the database's
            raise


def _completed(metadata: PluginMetadata, source: PluginSource) -> PluginMetadata:
    """Fill what the plugin leaves empty from its manifest."""
    return replace(
        metadata,
        description=metadata.description or source.manifest.description or "",
        author=metadata.author or source.manifest.author or "",
    )
