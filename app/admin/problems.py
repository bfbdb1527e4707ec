"""Errors as answers: RFC 9457 problems, never with a traceback."""

import json
import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import falcon

from app.errors import (
    BenanaError,
    DatabaseUnavailableError,
    PluginError,
    UnknownPluginError,
)
from app.serving.application import LiveApp
from app.serving.routes import SERVER

log = logging.getLogger(__name__)

MEDIA_PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 1


class Problem(falcon.HTTPError):
    """An HTTP error with members of its own beside RFC 9457's."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            falcon.code_to_http_status(status),
            title=HTTPStatus(status).phrase,
            description=detail,
            headers=dict(headers) if headers else None,
        )
        self.members = dict(members or {})


def install(app: LiveApp) -> None:
    """Make every error of an application a problem."""
    app.set_error_serializer(_serialize)

    def unexpected(
        req: falcon.Request, _resp: falcon.Response, error: Exception, _params: dict[str, Any]
    ) -> None:
        table = app.running.slot().table or app.table
        if req.uri_template is None:  # the search itself raised, in a converter
            owner = table.owner_at_fault(req.path)
        else:
            owner = table.owner_of(req.uri_template)
        _raise_unexpected(req, error, owner or SERVER)

    def ours(
        req: falcon.Request, resp: falcon.Response, error: BenanaError, params: dict[str, Any]
    ) -> None:
        _raise_ours(error)
        unexpected(req, resp, error, params)

    app.add_error_handler(Exception, unexpected)
    app.add_error_handler(BenanaError, ours)


def _serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    status = falcon.http_status_to_code(error.status)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title or HTTPStatus(status).phrase,
        "status": status,
    }
    if error.title == error.status:  # Falcon's own default
        body["title"] = error.status.partition(" ")[2]
    if error.description:
        body["detail"] = error.description
    body["instance"] = req.path
    if error.code is not None:
        body["code"] = error.code
    if error.link is not None:
        body["link"] = error.link
    if isinstance(error, Problem):
        body.update(error.members)
    resp.content_type = MEDIA_PROBLEM
    resp.data = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _raise_ours(error: BenanaError) -> None:
    """Raise the problem that stands for an error of ours, if one does."""
    if isinstance(error, UnknownPluginError):
        raise Problem(404, str(error))
    if isinstance(error, DatabaseUnavailableError):
        raise Problem(
            503,
            "The database is away; what is loaded is served on. Try again in a moment.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from error
    if isinstance(error, PluginError):
        raise Problem(422, str(error), members={"plugin": error.plugin, "error": error.as_record()})


def _raise_unexpected(req: falcon.Request, error: Exception, owner: str) -> None:
    """Answer 500 with an error id that ties the answer to the log."""
    error_id = uuid.uuid4().hex[:12]
    log.error(
        "%s: %s %s raised %s [error %s]",
        owner,
        req.method,
        req.path,
        type(error).__name__,
        error_id,
        exc_info=error,
    )
    whose = owner if owner == SERVER else f"the plugin {owner!r}"
    raise Problem(
        500,
        f"An error in {whose}; the log says more under the error id.",
        members={"error_id": error_id},
    )
