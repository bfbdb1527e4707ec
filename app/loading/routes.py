"""A route: a URI template, the resource that answers it, and its method map."""

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

import falcon
from falcon.routing import BaseConverter, CompiledRouterOptions

from app.activity import Name
from app.loading.callers import CallerCheck
from app.loading.handler_signature import HandlerSignature
from app.loading.method_maps import add_default_responders, responders_of
from app.loading.responders import Responder
from app.loading.route_options import RouteOptions
from app.loading.streamed_answers import drop_stream
from app.records import Endpoint
from app.uri_templates import converter_names

BUILTIN: Mapping[str, type] = dict(CompiledRouterOptions().converters)
"""The converters that Falcon brings."""

SERVER = "the server"
"""The owner of the server's own routes."""

Place = tuple[str, int]
"""A file of the plugin and a line of it."""


class AnyConverter(BaseConverter):
    """Stands for a plugin's own converter where that is not there, as in another process."""

    def __init__(self, *_args: object, **_options: object) -> None:
        """Take what it takes."""

    def convert(self, value: str) -> str:
        """Accept everything."""
        return value


class MethodMap(dict[str, Any]):
    """The responder of each method of a route, in Falcon's form, and the route itself."""

    __slots__ = ("route",)

    route: "Route"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route, as who describes it needs it.

    `answers` is the plugin's handler, a Falcon responder or, for all methods together (`*`), a WSGI
    application; `signature` says what a handler takes and returns.
    """

    answers: Callable[..., Any]
    options: RouteOptions
    signature: HandlerSignature | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A URI template and the Falcon resource that answers it.

    `owner` is the plugin's name, or `SERVER`. `generation` tells the routes of one loaded
    generation from all others. `place` is where the plugin registers the route; only a trial knows
    it. `name` is what a thread shows while it answers the route (`app/activity.py`). `app` is the
    plugin's own application, if it has one (`routing/plugin_app.py`).

    `converters` are those of the template that Falcon does not bring, by name; where they are not
    given, as where only templates are compared, something stands for them.

    `around` is put around what answers instead of the responders, where the route stands for a sink
    or a static route (`routing/first_answers.py`).

    `operations` are its methods as a plugin registers them, with the options of each. `exclusive`
    tells that one process alone runs the plugin: all others know its endpoints, and no more.

    `methods` is Falcon's method map: the responder of each method, with 405 for those that the
    resource does not answer. It is made once, for all tables that the route will be in: from
    `responders` if they are given, else by asking the resource. The responder of GET answers HEAD
    too, unless the resource has an `on_head` (plain Falcon answers 405).
    """

    owner: str
    template: str
    resource: object
    suffix: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    responders: InitVar[Mapping[str, Responder] | None] = None
    generation: str = ""
    place: Place | None = None
    converters: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    operations: Mapping[str, Operation] = field(default_factory=dict, repr=False, compare=False)
    exclusive: bool = field(default=False, repr=False, compare=False)
    app: Any = field(default=None, init=False, repr=False, compare=False)
    around: Callable[[Responder], Responder] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    methods: MethodMap = field(init=False, repr=False, compare=False)
    name: Name = field(init=False, repr=False, compare=False)

    def __post_init__(self, responders: Mapping[str, Responder] | None) -> None:
        """Make the method map."""
        known = responders or responders_of(self.resource, self.suffix)
        methods = MethodMap(known)
        if "GET" in methods and "HEAD" not in methods:
            methods["HEAD"] = head_of(methods["GET"])
        add_default_responders(methods)
        methods.route = self
        names = converter_names(self.template) if "{" in self.template else ()
        theirs = {
            name: self.converters.get(name, AnyConverter)
            for name in names
            if name in self.converters or name not in BUILTIN
        }
        object.__setattr__(self, "converters", theirs)
        object.__setattr__(self, "methods", methods)
        shown = f"{self.owner} {self.generation.rpartition('.')[2]} {self.template}"
        object.__setattr__(self, "name", Name(shown))

    @property
    def signatures(self) -> Mapping[str, HandlerSignature]:
        """What its handlers take and return, by method; a Falcon resource has none."""
        return {m: each.signature for m, each in self.operations.items() if each.signature}

    def answer_by(self, app: Any) -> None:
        """Have an application of the plugin's own answer; call this before it is in a table."""
        object.__setattr__(self, "app", app)

    def answer_around(self, around: Callable[[Responder], Responder] | None) -> None:
        """Put something around what answers instead of the responders, nothing with None."""
        object.__setattr__(self, "around", around)

    def run_alone(self) -> None:
        """Note that one process alone runs the plugin; call this before it is in a table."""
        object.__setattr__(self, "exclusive", True)

    def put_behind(self, check: CallerCheck) -> None:
        """Check the callers before each responder; call this before the route is in a table."""
        for method, responder in self.methods.items():
            self.methods[method] = check.before(responder)


def describe_owner(owner: str) -> str:
    """Return a route's owner as sentences name it."""
    return owner if owner == SERVER else f"the plugin {owner!r}"


def head_of(get: Responder) -> Responder:
    """Return a responder for HEAD, made from the one for GET; Falcon itself omits the body."""

    def head(req: falcon.Request, resp: falcon.Response, **fields: Any) -> None:
        get(req, resp, **fields)
        if resp.stream is not None:
            # Nobody will read it, and Falcon forgets it: close it here, as a server would.
            drop_stream(resp)
            resp.stream = iter(())

    return head
