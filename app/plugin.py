"""All that a plugin author imports.

A plugin is any object with the four methods of `PluginInterface`; it is checked by shape, so
subclassing is a convenience and not a duty.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict, Unpack

from app.responses import Answer, Event, Problem
from app.uploads import File

__all__ = [
    "Answer",
    "Cookie",
    "Event",
    "File",
    "Form",
    "Header",
    "PluginContext",
    "PluginInterface",
    "PluginMetadata",
    "PluginServer",
    "Problem",
    "Produces",
    "Query",
    "RouteKeywords",
]


@dataclass(frozen=True, slots=True)
class Query:
    """Says that a handler's parameter is a query parameter, and how that is called.

    As in `per_page: Annotated[int, Query("per-page")] = 20`. Without it a parameter that nothing
    else fills is one under its own name.
    """

    name: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """Says that a handler's parameter is a header: `token: Annotated[str, Header("X-Token")]`.

    Without a name it is the parameter's, with `-` for `_`.
    """

    name: str = ""


@dataclass(frozen=True, slots=True)
class Cookie:
    """Says that a handler's parameter is a cookie, as in `session: Annotated[str, Cookie()]`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """Says that a form fills a handler's parameter, as in `age: Annotated[int, Form()] = 0`.

    The form is urlencoded or multipart. A model, a dataclass or the like takes all of it:
    `signup: Annotated[Signup, Form()]`. A `File`, or a list of them, needs no mark but where its
    name is another one, or its size is said: all files of the name have `max_bytes` at most, 16 MiB
    without.
    """

    name: str = ""
    max_bytes: int = 0


@dataclass(frozen=True, slots=True, init=False)
class Produces:
    """Says as which media types a handler answers; the request's `Accept` chooses, or it is a 406.

    As in `-> Annotated[Order, Produces("application/json", "application/yaml", "text/html")]`. The
    first one counts where the client has no preference.
    """

    media_types: tuple[str, ...]

    def __init__(self, *media_types: str) -> None:
        object.__setattr__(self, "media_types", media_types)


@dataclass(frozen=True, slots=True)
class PluginMetadata:
    """What a plugin says of itself.

    `name` must equal the name of the plugin's folder; `version` is free text of 1 to 100
    characters. What is left empty is taken from `plugin.yaml`; where both name a version, it must
    be the same.
    """

    name: str
    version: str = ""
    description: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the server hands to a plugin in `initialize` and `cleanup`.

    `config` is the `config:` mapping of the plugin's `plugin.yaml`, empty without one.

    `database` opens a pooled psycopg2 connection for the length of a `with` block; the block's
    transaction is committed at its end and rolled back when it raises::

        with context.database() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    In a trial nothing lasts: `commit()`, `autocommit` and `with connection:` behave as written, and
    all of it is undone at the trial's end. All loans of a trial share one session, so what one has
    committed the next one sees.

    `data_dir` is a folder of the plugin's own, made when it is first asked for and kept over
    reloads; where it cannot be made, asking for it is an OSError.

    `cancelled` is set when this generation is to stop: a thread of the plugin's own waits on it.

    `trial` is true while the plugin is only being tried, in a process that ends afterwards.
    """

    name: str
    config: Mapping[str, Any]
    logger: logging.Logger
    database: Callable[[], AbstractContextManager[Any]]
    data_dir: Path = field(repr=False, compare=False)
    cancelled: threading.Event = field(default_factory=threading.Event)
    trial: bool = False


class RouteKeywords(TypedDict, total=False):
    """What `server.get`, `post` and the like take besides a template and a handler.

    `summary` and `description` come from the handler's docstring where they are not given,
    `operation_id` from its name, `tags` from the plugin's. What is `hidden` is served, and is not
    in the document. `status` is that of a plain return (200, or 204 for None). `responses` says
    what else may be answered: by status (or `"default"`) a text, a type, both as a tuple, or a
    response of OpenAPI. `security` is `"bearer"`, `"basic"`, or a mapping of names to security
    schemes of OpenAPI; it describes, and checks nothing. `before` and `after` are hooks as those of
    `falcon.before` and `falcon.after`, or lists of them.
    """

    summary: str
    description: str
    tags: Sequence[str]
    operation_id: str
    deprecated: bool
    hidden: bool
    status: int
    responses: Mapping[int, Any] | Mapping[int | str, Any]
    security: str | Sequence[str] | Mapping[str, Mapping[str, Any]]
    before: Callable[..., Any] | Sequence[Callable[..., Any]]
    after: Callable[..., Any] | Sequence[Callable[..., Any]]


class PluginServer(Protocol):
    """Where a plugin registers its routes, inside `register_routes`.

    Templates are Falcon's URI templates. A handler is any callable; its parameters are filled by
    name and annotation: the template's fields by name, `body` with the parsed JSON body (with
    `body: bytes` as it came), `falcon.Request`, `falcon.Response` and `PluginContext` by
    annotation (the first two also under the names `req` and `resp`), all others by the query string
    (`limit: int = 10`), or by what `Header`, `Cookie` and `Form` name; what does not fit is a 422
    that names all of it. What it returns is the JSON answer (or what `Produces` names); None
    answers 204, what it yields is streamed. A handler that would fail at every request is refused.
    """

    def get(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer GET on a template with a handler."""

    def post(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer POST on a template with a handler."""

    def put(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer PUT on a template with a handler."""

    def patch(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer PATCH on a template with a handler."""

    def delete(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer DELETE on a template with a handler."""

    def sse(
        self, uri_template: str, handler: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer GET with server-sent events: what the handler yields, `Event`, text, or JSON.

        The stream ends when a newer version serves; an EventSource then comes again, to that.
        """

    def add_route(
        self, uri_template: str, resource: object, suffix: str | None = None, **options: Any
    ) -> None:
        """Add a Falcon resource, exactly as `falcon.App.add_route` does.

        It takes the keywords of `RouteKeywords`, too, but for `operation_id` and `status`.
        """

    def mount(
        self, prefix: str, application: Callable[..., Any], **options: Unpack[RouteKeywords]
    ) -> None:
        """Have a WSGI application (Flask, Django, a `falcon.App`) answer a prefix and all below.

        The prefix is plain text, as `/shop/admin`; the application sees it as `SCRIPT_NAME`.
        """

    def group(self, prefix: str, **options: Unpack[RouteKeywords]) -> Any:
        """Return where to register routes below a prefix: `group("/v1").get("/orders", orders)`.

        It has the methods of this class that register a route, and `group`. Its keywords are those
        of all its routes: tags, responses and hooks add up, whatever else a route says counts.
        """

    def add_middleware(self, middleware: Any) -> None:
        """Add Falcon middleware for the plugin's requests, and for no other's.

        It also sees requests for what has no route, below a first segment that is the plugin's
        alone.
        """

    def add_error_handler(self, exception: Any, handler: Any = None) -> None:
        """Handle an exception in the plugin's requests, as `falcon.App.add_error_handler` does."""

    def add_sink(self, sink: Callable[..., Any], prefix: Any = r"/") -> None:
        """Answer what has no route below a prefix, as `falcon.App.add_sink` does.

        Its first segment is plain text: what is not below that is asked of others.
        """

    def add_static_route(
        self, prefix: str, directory: Any, downloadable: bool = False, **options: Any
    ) -> None:
        """Serve the files of a folder, as `falcon.App.add_static_route` does."""

    def set_error_serializer(self, serializer: Any) -> None:
        """Say how errors of the plugin look, as `falcon.App.set_error_serializer` does."""

    @property
    def router_options(self) -> Any:
        """Falcon's options of the plugin's router: `router_options.converters["sku"] = Sku`."""

    @property
    def req_options(self) -> Any:
        """The `falcon.RequestOptions` of the plugin's requests."""

    @property
    def resp_options(self) -> Any:
        """The `falcon.ResponseOptions` of the plugin's responses."""


class PluginInterface(Protocol):
    """The four methods that every plugin has.

    A method that a subclass leaves out counts as missing: the ones below are nothing but their
    signatures.
    """

    def initialize(self, context: PluginContext) -> None:
        """Set up what the plugin needs, before its routes are registered."""

    def get_metadata(self) -> PluginMetadata:
        """Return what the plugin says of itself."""

    def register_routes(self, server: PluginServer) -> None:
        """Register the plugin's routes with the server."""

    def cleanup(self, context: PluginContext) -> None:
        """Give back what `initialize` took, after the last request of this generation."""
