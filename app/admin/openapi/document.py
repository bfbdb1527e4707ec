"""The document of all that is live, and of one plugin: made at the first request after a swap."""

import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from app.admin.openapi.admin_api import ADMIN_TAG, admin_fragment
from app.admin.openapi.fragment import Fragment, bare, write_fragment
from app.admin.openapi.responses import PROBLEM_NAME, PROBLEM_SCHEMA, problem
from app.isolation.stand_in import is_elsewhere
from app.loading.routes import SERVER, Route
from app.loading.strict_json import to_json
from app.plugin import PluginMetadata
from app.routing.application import LiveApp
from app.routing.table import RouteTable

OPENAPI = "3.1.0"
LACKS = "x-benana-lacks"
"""Under which a plugin's document says what it lacks, as what could not be described."""

WAIT_SECONDS = 1.0
"""How long who asks what a document lacks waits for those that are being written."""

ATTEMPTS = 3
"""How often a document is begun anew because plugins were replaced while it was written."""

_DESCRIPTION = """\
A [Benana](https://github.com/benana-server/benana) server: it serves plugins, small pieces of
Python that add routes while it runs. This document lists all that is live now."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is sent, and its entity tag."""

    body: bytes
    etag: str


def make_document(
    info: dict[str, Any], fragments: Iterable[tuple[str, Fragment]]
) -> dict[str, Any]:
    """Return an OpenAPI document of the fragments of several owners."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {PROBLEM_NAME: PROBLEM_SCHEMA}
    security: dict[str, Any] = {}
    owners = []
    for owner, fragment in fragments:
        owners.append(owner)
        # No path is in two of them: the route table has no two templates that differ in the names
        # of fields, or in converters, alone.
        paths |= fragment.paths
        schemas |= fragment.schemas
        security |= fragment.security
    components: dict[str, Any] = {
        "schemas": schemas,
        "responses": {PROBLEM_NAME: problem("Any other error.")},
    }
    if security:
        components["securitySchemes"] = security
    return {
        "openapi": OPENAPI,
        "info": info,
        "tags": [{"name": owner} for owner in owners],
        "paths": dict(sorted(paths.items())),
        "components": components,
    }


def plugin_info(name: str, metadata: PluginMetadata | None, routes: tuple[Route, ...]) -> Any:
    """Return the `info` of a plugin's own document."""
    generation = routes[0].generation.rpartition(".")[2] if routes else ""
    info = {"title": name, "version": (metadata and metadata.version) or generation or "live"}
    if metadata and metadata.description:
        info["description"] = metadata.description
    return info


class LiveDocuments:
    """Makes the documents of what an application serves now, and keeps them until that changes.

    What it keeps is text and plain JSON: nothing that a plugin's generation has made.
    """

    def __init__(
        self,
        app: LiveApp,
        metadata_of: Callable[[str], PluginMetadata | None],
        *,
        has_token: bool,
    ) -> None:
        """Make nothing yet.

        Args:
            app: whose route table is described.
            metadata_of: returns what a plugin that is served says of itself, None if nobody knows.
            has_token: whether the admin API asks for a token.
        """
        self._app = app
        self._metadata_of = metadata_of
        self._has_token = has_token
        self._lock = threading.Lock()
        self._lacks = False
        """Whether what is being written lacks something, under the lock."""
        self._fragments: dict[tuple[str, str], tuple[str, Fragment]] = {}
        self._made: dict[tuple[str, bool], tuple[int, Document]] = {}

    def of_all(self, *, with_admin: bool) -> Document:
        """Return the document of all plugins, and of the admin API if it is to be shown."""
        found = self._document("", with_admin, self._write_all)
        assert found is not None  # noqa: S101 - for the type checker: there is always one
        return found

    def of_plugin(self, name: str) -> Document | None:
        """Return the document of a plugin, None if it is not served."""
        return self._document(name, False, self._write_plugin)

    def lacks_of(self, name: str) -> tuple[str, ...]:
        """Return what a plugin's document lacks, a sentence each; nothing if it is not served.

        Nothing either while documents are written that take longer than `WAIT_SECONDS`.
        """
        routes = self._app.table.owned.find(name)
        if not routes or name == SERVER:
            return ()
        known = self._fragments.get((name, ""))
        if known is not None and known[0] == routes[0].generation:
            return known[1].lacks
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return ()
        try:
            return self._fragment(name, routes, "").lacks
        finally:
            self._lock.release()

    def elsewhere(self, name: str) -> Route | None:
        """Return a route of a plugin that another process runs, None of any other.

        Whatever is passed on by it is answered there, the request for the document as well.
        """
        routes = self._app.table.owned.find(name) or ()
        return next(filter(is_elsewhere, routes), None)

    def _document(
        self,
        name: str,
        with_admin: bool,
        write: Callable[[RouteTable, str, bool], dict[str, Any] | None],
    ) -> Document | None:
        made = self._made.get((name, with_admin))
        if made is not None and made[0] == self._app.table.number:
            return made[1]
        with self._lock:
            table = self._app.table
            made = self._made.get((name, with_admin))
            if made is not None and made[0] == table.number:
                return made[1]
            self._forget_others(table)
            for _ in range(ATTEMPTS):
                self._lacks = False
                content = write(table, name, with_admin)
                if not self._lacks or self._app.table is table:
                    break
                table = self._app.table  # what was described has ended meanwhile
            if content is None:
                return None
            body = to_json(content)
            document = Document(body, hashlib.sha256(body).hexdigest()[:32])
            self._made[name, with_admin] = (table.number, document)
            return document

    def _write_all(self, table: RouteTable, _name: str, with_admin: bool) -> dict[str, Any]:
        owned = sorted(table.owned.items())
        fragments = [
            (owner, self._fragment(owner, routes, f"{owner}."))
            for owner, routes in owned
            if owner != SERVER
        ]
        info = {"title": "Benana", "version": "live", "description": _DESCRIPTION}
        if with_admin:
            info["version"] = version("benana")
            routes = dict(owned).get(SERVER, ())
            fragments.append((ADMIN_TAG, admin_fragment(routes, has_token=self._has_token)))
        return make_document(info, fragments)

    def _write_plugin(self, table: RouteTable, name: str, _admin: bool) -> dict[str, Any] | None:
        routes = table.owned.find(name)
        if routes is None or name == SERVER:
            return None
        info = plugin_info(name, self._metadata_of(name), routes)
        fragment = self._fragment(name, routes, "")
        document = make_document(info, [(name, fragment)])
        return {**document, LACKS: list(fragment.lacks)} if fragment.lacks else document

    def _fragment(self, owner: str, routes: tuple[Route, ...], prefix: str) -> Fragment:
        """Return what an owner contributes; it is written once for each of its generations."""
        generation = routes[0].generation if routes else ""
        known = self._fragments.get((owner, prefix))
        if known is not None and known[0] == generation:
            return known[1]
        if prefix and any(route.exclusive for route in routes):
            # One document for all: whoever does not run it knows no more, and asks nobody here.
            fragment = write_fragment(owner, bare(routes), prefix)
        else:
            fragment = write_fragment(owner, routes, prefix)
        # What is served still did not fail because it had ended: it fails again, so it is kept.
        if fragment.is_whole or self._app.table.owned.find(owner) is routes:
            self._fragments[owner, prefix] = (generation, fragment)
        else:
            self._lacks = True
        return fragment

    def _forget_others(self, table: RouteTable) -> None:
        """Forget what is kept of plugins that are served no more."""
        for kept in [key for key in self._fragments if table.owned.find(key[0]) is None]:
            del self._fragments[kept]
        gone = [key for key in self._made if key[0] and table.owned.find(key[0]) is None]
        for key in gone:
            del self._made[key]
