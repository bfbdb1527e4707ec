"""The REST admin API: plugins, workers and health."""

import datetime
import time
from collections.abc import Mapping
from typing import Any

import falcon

from app.admin.guard import Guard
from app.admin.problems import Problem
from app.conditions import Condition
from app.errors import SupersededError, UnknownPluginError
from app.health import STARTING
from app.loading.strict_json import to_json
from app.manager import PluginManager
from app.records import (
    ACTIVE,
    INACTIVE,
    Convergence,
    PluginFailure,
    PluginRow,
    ServedRow,
    WorkerLoad,
    is_plugin_name,
)

STATUSES = (ACTIVE, INACTIVE, "failed")
MAX_WAIT_SECONDS = 60


class PluginsResource:
    """`/plugins` and what lies below it."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the registered plugins; with `?status=` those of one status, or the failures."""
        status = req.get_param("status")
        if status is not None and status not in STATUSES:
            raise Problem(400, f"status is {status[:40]!r}; expected one of {', '.join(STATUSES)}.")
        if status == "failed":
            _answer(resp, [_show_failure(found) for found in self._manager.list_failures()])
            return
        rows = self._manager.list_plugins()
        errors = self._manager.fleet.load_errors()
        _answer(resp, [_show(row, errors) for row in rows if status in {None, row.status}])

    def on_get_named(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show one plugin, or why its folder is none."""
        row = self._manager.find_plugin(_checked(name))
        if row is not None:
            workers = _show_convergence(self._manager.fleet.convergence(row.served))
            shown = _show(row, self._manager.fleet.load_errors(name))
            _answer(resp, {**shown, "workers": workers, "reasons": self._reasons_of(name)})
            return
        failure = self._manager.find_failure(name)
        if failure is None:
            raise UnknownPluginError(name)
        raise Problem(
            404,
            f"{name} is not registered: its folder is no valid plugin. {failure.error['message']}",
            members={"plugin": name, "error": failure.error},
        )

    def _reasons_of(self, name: str) -> list[dict[str, Any]]:
        """Return what processes say of a plugin, and of all, in their health checks."""
        return [
            {"host": worker.host, "pid": worker.pid, **reason}
            for worker in self._manager.fleet.workers()
            for reason in worker.reasons
            if reason["plugin"] in {name, None}
        ]

    def on_post_reload(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Compile, try and publish a plugin again; with `?wait=SECONDS`, see it served."""
        seconds = _wait_of(req)
        try:
            row = self._manager.reload(_checked(name))
        except SupersededError as error:
            raise Problem(
                503, f"Nothing was published: {error}.", headers={"Retry-After": "1"}
            ) from None
        answer = {
            "message": "Plugin reload triggered successfully",
            "plugin": name,
            "status": "reloading",
        }
        if seconds is None:
            resp.status = falcon.HTTP_202
        else:
            answer |= {"status": row.status, **self._await(row, seconds)}
        _answer(resp, answer)

    def on_post_toggle(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Turn a plugin off or on; with `?wait=SECONDS`, see it followed."""
        seconds = _wait_of(req)
        row = self._manager.toggle(_checked(name))
        answer = {
            "message": "Plugin status updated successfully",
            "plugin": name,
            "status": row.status,
        }
        if seconds is not None:
            answer |= self._await(row, seconds)
        _answer(resp, answer)

    def _await(self, row: ServedRow, seconds: float) -> dict[str, Any]:
        """Wait for all processes; 504 names those that do not follow in time."""
        began = time.monotonic()
        found = self._manager.fleet.wait(row, seconds)
        workers = _show_convergence(found)
        if found.behind:
            reasons = dict.fromkeys(filter(None, map(_why_behind, found.behind)))
            raise Problem(
                504,
                f"{len(found.behind)} of {found.total} workers do not run generation "
                f"{row.generation} of {row.name} after {seconds:g} s"
                f"{': ' if reasons else ''}{'; '.join(reasons)}.",
                members={"plugin": row.name, "generation": row.generation, "workers": workers},
            )
        return {
            "generation": row.generation,
            "seconds": round(time.monotonic() - began, 4),
            "workers": workers,
        }


class WorkersResource:
    """`/workers`: the processes that serve, on all hosts."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the live processes, with what each says in its health check."""
        _answer(
            resp,
            [
                {
                    "id": worker.id,
                    "host": worker.host,
                    "pid": worker.pid,
                    "generations_alive": worker.generations_alive,
                    "started_at": _show_time(worker.started_at),
                    "heartbeat_at": _show_time(worker.heartbeat_at),
                    "status": worker.status,
                    "reasons": worker.reasons,
                }
                for worker in self._manager.fleet.workers()
            ],
        )


class HealthResource:
    """`/health/live`: the process answers. `/health/ready`: what is registered is served."""

    def __init__(self, manager: PluginManager, guard: Guard) -> None:
        self._manager = manager
        self._guard = guard

    def on_get_live(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 as long as this process answers at all."""
        _answer(resp, {"status": "live"})

    def on_get_ready(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 with `ready`, or with `degraded` while not all is as it should be.

        How many reasons there are is for everybody, which they are for who may read the admin API.
        """
        health = self._manager.health
        reasons: dict[str, Any] = {}
        if health.reasons:
            reasons["reason_count"] = len(health.reasons)
            if self._guard.may_read(req):
                reasons["reasons"] = [_show_reason(reason) for reason in health.reasons]
        if not health.serves:
            raise Problem(
                503,
                "This process is still starting."
                if health.status == STARTING
                else "Nothing of what is registered is served.",
                headers={"Retry-After": "1"},
                members=reasons,
            )
        _answer(resp, {"status": health.status, **reasons})


def _show(
    row: PluginRow, load_errors: Mapping[tuple[str, int], Mapping[str, Any]]
) -> dict[str, Any]:
    error = row.error
    if error is None and row.status == ACTIVE:
        error = load_errors.get((row.id, row.generation))
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "version": row.version,
        "author": row.author,
        "type": row.type,
        "status": row.status,
        "source_path": row.source_path,
        "binary_path": row.binary_path,
        "created_at": _show_time(row.created_at),
        "updated_at": _show_time(row.updated_at),
        "generation": row.generation,
        "error": error,
        "endpoints": [
            {"method": found.method, "path": found.path, "handler": found.handler}
            for found in row.endpoints
        ],
    }


def _wait_of(req: falcon.Request) -> float | None:
    text = req.get_param("wait")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_WAIT_SECONDS:
        raise Problem(
            400,
            f"wait is {text[:40]!r}; expected seconds, more than 0 and {MAX_WAIT_SECONDS} at most.",
        )
    return seconds


def _show_convergence(found: Convergence) -> dict[str, Any]:
    return {
        "total": found.total,
        "current": found.current,
        "behind": [
            {
                "host": worker.host,
                "pid": worker.pid,
                "generation": worker.load.generation if worker.load else None,
                "error": worker.load.error if worker.load else _absence(worker),
            }
            for worker in found.behind
        ],
    }


def _absence(worker: WorkerLoad) -> dict[str, Any] | None:
    if not worker.absent:
        return None
    return {"phase": "worker", "message": worker.absent, "file": None, "line": None}


def _why_behind(worker: WorkerLoad) -> str:
    error = worker.load.error if worker.load else _absence(worker)
    return "" if error is None else f"{error['phase']} failed: {error['message']}"


def _show_reason(reason: Condition) -> dict[str, Any]:
    return {"plugin": reason.plugin, "what": reason.what, "since": _show_time(reason.since)}


def _checked(name: str) -> str:
    if not is_plugin_name(name):
        raise UnknownPluginError(name[:63])
    return name


def _answer(resp: falcon.Response, body: object) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = to_json(body)


def _show_time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat()


def _show_failure(failure: PluginFailure) -> dict[str, Any]:
    return {
        "name": failure.name,
        "status": "failed",
        "source_path": failure.source_path,
        "updated_at": _show_time(failure.updated_at),
        "error": failure.error,
    }
