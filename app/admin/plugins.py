"""`/plugins`: what is registered, reload and toggle."""

import time
from typing import Any

import falcon

from app.admin.openapi.document import LiveDocuments
from app.admin.views import answer_json, show_convergence, show_failure, show_plugin, why_behind
from app.errors import DatabaseUnavailableError, SupersededError, UnknownPluginError
from app.manager import PluginManager
from app.records import ACTIVE, INACTIVE, ServedRow, is_plugin_name
from app.responses import Problem

STATUSES = (ACTIVE, INACTIVE, "failed")
MAX_WAIT_SECONDS = 60


class PluginsResource:
    """`/plugins` and what lies below it."""

    def __init__(self, manager: PluginManager, documents: LiveDocuments) -> None:
        self._manager = manager
        self._documents = documents

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the registered plugins; with `?status=` those of one status, or the failures."""
        status = req.get_param("status")
        if status is not None and status not in STATUSES:
            raise Problem(400, f"status is {status[:40]!r}; expected one of {', '.join(STATUSES)}.")
        if status == "failed":
            failures = self._manager.rows.failures.list_all()
            answer_json(resp, list(map(show_failure, failures)))
            return
        rows = self._manager.rows.list_rows()
        errors = self._manager.fleet.load_errors()
        answer_json(
            resp, [show_plugin(row, errors) for row in rows if status in {None, row.status}]
        )

    def on_get_named(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show one plugin, or why its folder is none."""
        row = self._manager.rows.find_row(_checked(name))
        if row is not None:
            workers = show_convergence(self._manager.fleet.convergence(row.served))
            shown = show_plugin(row, self._manager.fleet.load_errors(name))
            answer_json(resp, {**shown, "workers": workers, "reasons": self._reasons_of(name)})
            return
        failure = self._manager.rows.failures.find(name)
        if failure is None:
            folder = self._manager.folder_of(name)
            if folder is None:
                raise UnknownPluginError(name)
            raise Problem(
                404,
                f"{name} is not registered. Its folder {folder} is on this host: "
                f"POST /plugins/{name}/reload registers it.",
                members={"plugin": name},
            )
        raise Problem(
            404,
            f"{name} is not registered: its folder is no valid plugin. {failure.error['message']}",
            members={"plugin": name, "error": failure.error},
        )

    def _reasons_of(self, name: str) -> list[dict[str, Any]]:
        """Return what processes say of a plugin, and of all, in their health checks.

        What its OpenAPI document lacks is said after that: it is the same in all processes.
        """
        said = [
            {"host": worker.host, "pid": worker.pid, **reason}
            for worker in self._manager.fleet.workers()
            for reason in worker.reasons
            if reason["plugin"] in {name, None}
        ]
        lacks = self._documents.lacks_of(name)
        return said + [{"plugin": name, "what": each, "degrades": False} for each in lacks]

    def on_post_reload(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Compile, try and publish a plugin again; with `?wait=SECONDS`, see it served."""
        seconds = _wait_of(req)
        try:
            reload = self._manager.reload(_checked(name))
        except SupersededError as error:
            raise Problem(
                503, f"Nothing was published: {error}.", headers={"Retry-After": "1"}
            ) from None
        answer = {
            "message": "Plugin reload triggered successfully",
            "plugin": name,
            "status": "reloading",
            **({"note": reload.note} if reload.note else {}),
        }
        if seconds is None:
            resp.status = falcon.HTTP_202
        else:
            answer |= {"status": reload.row.status, **self._await(reload.row, seconds)}
        answer_json(resp, answer)

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
        answer_json(resp, answer)

    def _await(self, row: ServedRow, seconds: float) -> dict[str, Any]:
        """Wait for all processes; 504 names those that do not follow in time, or cannot at all."""
        began = time.monotonic()
        try:
            convergence = self._manager.fleet.wait(row, seconds)
        except DatabaseUnavailableError as error:
            raise Problem(
                504,
                f"The row of {row.name} has generation {row.generation}, but whether the workers "
                f"run it cannot be told: {error}.",
                members={"plugin": row.name, "generation": row.generation},
            ) from error
        workers = show_convergence(convergence)
        if convergence.behind:
            reasons = dict.fromkeys(filter(None, map(why_behind, convergence.behind)))
            what = f"generation {row.generation} of {row.name}"
            what = (
                f"cannot load {what}"
                if convergence.failed
                else f"do not run {what} after {seconds:g} s"
            )
            raise Problem(
                504,
                f"{len(convergence.behind)} of {convergence.total} workers {what}"
                f"{': ' if reasons else ''}{'; '.join(reasons)}.",
                members={"plugin": row.name, "generation": row.generation, "workers": workers},
            )
        return {
            "generation": row.generation,
            "seconds": round(time.monotonic() - began, 4),
            "workers": workers,
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


def _checked(name: str) -> str:
    if not is_plugin_name(name):
        raise UnknownPluginError(name[:63])
    return name
