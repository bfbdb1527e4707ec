"""What a handler takes and returns, as documents describe it."""

import inspect
from dataclasses import dataclass
from typing import Any, Literal

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""

Kind = Literal[
    "path", "query", "header", "cookie", "body", "form", "request", "response", "context"
]
"""Where the value of a parameter comes from."""


@dataclass(frozen=True, slots=True)
class HandlerParameter:
    """A parameter of a handler that is filled at a request.

    `kind` says where its value comes from, and `name` what it is called there, empty where it is
    all of a form; `parameter` is the handler's own name for it. `annotation` is its type with all
    that `Annotated` says of it, and `inspect.Parameter.empty` without one; `default` is `REQUIRED`
    where it has to come.
    """

    kind: Kind
    parameter: str
    name: str
    annotation: Any
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class HandlerSignature:
    """What a handler takes, in the order of its parameters, and the type that it returns.

    `returns` is `inspect.Parameter.empty` where it says nothing. `content_types` are those
    of its answers, whatever it returns; none where they follow from what it returns.
    """

    parameters: tuple[HandlerParameter, ...]
    returns: Any
    content_types: tuple[str, ...] = ()
