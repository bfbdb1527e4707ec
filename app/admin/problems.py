"""Errors as answers: RFC 9457 problems, never with a traceback."""

import logging
import uuid
from typing import Any

import falcon

from app.errors import (
    BenanaError,
    ConflictError,
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    LoadError,
    PluginError,
    UnknownPluginError,
)
from app.loading.routes import SERVER, Route, describe_owner
from app.loading.strict_json import to_json
from app.responses import Problem
from app.routing.answers import BadAnswerError, PluginExitError
from app.routing.application import LiveApp

log = logging.getLogger(__name__)

MEDIA_PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 1

# By the class of PostgreSQL's code: what stands against it is a value, or another row. A refusal
# that somebody wrote into a trigger is a conflict, whatever its code; the rest is set up wrongly.
_REFUSED = {"22": 422, "23": 409}


def install(app: LiveApp) -> None:
    """Make every error of an application a problem."""
    app.set_error_serializer(_serialize)

    def at_fault(req: falcon.Request, what: str) -> str:
        """Return whose fault a failed request is, once it is counted."""
        at = app.running.slot().at
        if isinstance(at, Route):
            app.on_failure(at, what)
            return at.owner
        # No route was found yet: it is the server's fault, or that of a converter.
        return (at or app.table).owner_at_fault(req.path) or SERVER

    def unexpected(
        req: falcon.Request, _resp: falcon.Response, error: Exception, _params: dict[str, Any]
    ) -> None:
        what = f"raised {type(error).__name__}"
        owner = at_fault(req, what)
        detail = f"An error in {describe_owner(owner)}; the log says more under the error id."
        _raise_logged(req, owner, what, detail, error)

    def ours(
        req: falcon.Request, resp: falcon.Response, error: BenanaError, params: dict[str, Any]
    ) -> None:
        at = app.running.slot().at
        in_admin = isinstance(at, Route) and at.owner == SERVER
        _raise_ours(error, params.get("name"), in_admin=in_admin)
        unexpected(req, resp, error, params)

    def exits(
        req: falcon.Request, _resp: falcon.Response, error: PluginExitError, _params: dict[str, Any]
    ) -> None:
        raised = error.__cause__
        what = f"raised {type(raised).__name__}"
        detail = "The plugin tried to end the server; the log says more under the error id."
        _raise_logged(req, at_fault(req, what), what, detail, raised)

    def bad(
        req: falcon.Request, _resp: falcon.Response, error: BadAnswerError, _params: dict[str, Any]
    ) -> None:
        owner = at_fault(req, str(error))
        detail = f"{describe_owner(owner)} gave an answer that cannot be sent; the log says more."
        _raise_logged(req, owner, str(error), detail[0].upper() + detail[1:], None)

    app.add_error_handler(Exception, unexpected)
    app.add_error_handler(BenanaError, ours)
    app.add_error_handler(PluginExitError, exits)
    app.add_error_handler(BadAnswerError, bad)


def _serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    if type(error).to_json is not falcon.HTTPError.to_json:
        # As Falcon's own serializer does: the plugin's error says how it looks.
        resp.content_type = falcon.MEDIA_JSON
        resp.data = error.to_json()
        return
    line = falcon.code_to_http_status(error.status)
    members = dict(error.to_dict())  # a plugin's error may have members of its own
    title, detail = members.pop("title", None), members.pop("description", None)
    body: dict[str, Any] = {
        "type": "about:blank",
        # Falcon's own default is the whole line.
        "title": line.partition(" ")[2] if title in (None, "", line) else title,
        "status": falcon.http_status_to_code(error.status),
    }
    if detail:
        body["detail"] = detail
    body["instance"] = req.path
    body.update(members)
    resp.content_type = MEDIA_PROBLEM
    resp.data = to_json(body)


def _raise_ours(error: BenanaError, plugin: str | None, *, in_admin: bool) -> None:
    """Raise the problem that stands for an error of ours, if one does.

    Args:
        error: what was raised.
        plugin: the plugin that was asked for.
        in_admin: whether the admin API was asked, whose callers may read how PostgreSQL refuses
            a connection: with names of roles and hosts.
    """
    if isinstance(error, UnknownPluginError):
        raise Problem(404, str(error))
    if isinstance(error, DatabaseUnavailableError):
        away = str(error) if in_admin else "the database is away"
        detail = (
            f"{away[0].upper()}{away[1:]}; what is loaded keeps serving. Try again in a moment."
        )
        if isinstance(error, DatabaseBusyError):
            detail = f"The database is busy: {error}."
        elif isinstance(error, DatabaseReadOnlyError):
            detail = f"The database takes no changes now: {error}."
        raise Problem(
            503,
            detail,
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from error
    if isinstance(error, DatabaseRefusedError):
        status = _REFUSED.get(error.sqlstate[:2], 409 if error.raised else 500)
        if status == 500:
            log.error("%s", error)
        members = {
            "plugin": error.plugin or plugin,
            "sqlstate": error.sqlstate,
            "constraint": error.constraint,
        }
        raise Problem(
            status,
            f"{error}.",
            members={key: value for key, value in members.items() if value},
        ) from error
    if isinstance(error, PluginError):
        about = {"plugin": error.plugin, "error": error.as_record()}
        if error.outside and not isinstance(error, (LoadError, ConflictError)):
            # The server's disk or its rights, and not the plugin.
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise Problem(503, str(error), members=about, headers=headers)
        raise Problem(422, str(error), members=about)


def _raise_logged(
    req: falcon.Request, owner: str, what: str, detail: str, error: BaseException | None
) -> None:
    """Answer 500 with an error id that ties the answer to the log."""
    error_id = uuid.uuid4().hex[:12]
    log.error(
        "%s: %s %s %s [error %s]", owner, req.method, req.path, what, error_id, exc_info=error
    )
    raise Problem(500, detail, members={"error_id": error_id})
