"""Records as the admin API shows them: JSON, and sentences about processes that are behind."""

import datetime
from collections.abc import Mapping
from typing import Any

import falcon

from app.conditions import Condition
from app.loading.strict_json import to_json
from app.records import ACTIVE, HOT, PluginFailure, PluginRow, Reload
from app.worker_records import Convergence, WorkerLoad


def show_plugin(
    row: PluginRow, load_errors: Mapping[tuple[str, int], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a plugin as the API shows it, with the error of its load where its source has none."""
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
        "created_at": show_time(row.created_at),
        "updated_at": show_time(row.updated_at),
        "generation": row.generation,
        "error": error,
        "reload": _show_reload(row.reload),
        "endpoints": [
            {"method": endpoint.method, "path": endpoint.path, "handler": endpoint.handler}
            for endpoint in row.endpoints
        ],
    }


def _show_reload(reload: Reload | None) -> dict[str, Any]:
    """Return how a version goes live; what nobody has found out is hot."""
    found = reload or Reload(HOT, "")
    return {"how": found.shown, "why": found.why or None, "advice": found.advice or None}


def show_convergence(convergence: Convergence) -> dict[str, Any]:
    """Return how many processes run what a row says, and who does not."""
    owners = [_show_load(worker) for worker in convergence.owners]
    return {
        "total": convergence.total,
        "current": convergence.current,
        **({"owners": owners} if owners else {}),
        "behind": [
            {
                **_show_load(worker),
                "error": worker.load.error if worker.load else _absence(worker),
            }
            for worker in convergence.behind
        ],
    }


def _show_load(worker: WorkerLoad) -> dict[str, Any]:
    generation = worker.load.generation if worker.load else None
    return {"host": worker.host, "pid": worker.pid, "generation": generation}


def _absence(worker: WorkerLoad) -> dict[str, Any] | None:
    if not worker.absent:
        return None
    return {"phase": "worker", "message": worker.absent, "file": None, "line": None}


def why_behind(worker: WorkerLoad) -> str:
    """Return why a process is behind, empty if that is not known."""
    error = worker.load.error if worker.load else _absence(worker)
    return "" if error is None else f"{error['phase']} failed: {error['message']}"


def show_reason(reason: Condition) -> dict[str, Any]:
    """Return a condition as one of the reasons of a health check."""
    return {**reason.as_record(), "since": show_time(reason.since)}


def answer_json(resp: falcon.Response, body: object) -> None:
    """Answer with JSON."""
    resp.content_type = falcon.MEDIA_JSON
    resp.data = to_json(body)


def answer_tagged(
    req: falcon.Request, resp: falcon.Response, content: bytes, etag: str, media_type: str
) -> None:
    """Answer with content that is to be asked for each time, or 304 if it is known already."""
    resp.etag = etag
    resp.cache_control = ["no-cache"]
    if any(tag == "*" or str(tag) == etag for tag in req.if_none_match or ()):
        resp.status = falcon.HTTP_304
    else:
        resp.content_type = media_type
        resp.data = content


def show_time(moment: datetime.datetime) -> str:
    """Return a moment in UTC, as ISO 8601 has it."""
    return moment.astimezone(datetime.UTC).isoformat()


def show_failure(failure: PluginFailure) -> dict[str, Any]:
    """Return a folder that is no valid plugin, and why."""
    return {
        "name": failure.name,
        "status": "failed",
        "source_path": failure.source_path,
        "updated_at": show_time(failure.updated_at),
        "error": failure.error,
    }
