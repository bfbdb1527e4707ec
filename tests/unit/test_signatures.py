"""What is told of a responder at a glance is what `inspect` tells of it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from app.loading.signatures import responder_fault


class Resource:
    def plain(self, req, resp): ...
    def one(self, req, resp, number): ...
    def two(self, req, resp, number, name): ...
    def second_by_default(self, req, resp, number, name="x"): ...
    def all_by_default(self, req=None, resp=None, number=1): ...
    def short(self, req): ...
    def nothing(): ...  # type: ignore[misc]
    def rest(self, req, resp, **fields): ...
    def many(self, *parts): ...
    def keyword_only(self, req, resp, *, number): ...
    def positional_only(self, req, resp, number, /): ...
    def typed(self, req: Any, resp: Any, number: int = 0) -> None: ...
    async def asynchronous(self, req, resp, number): ...

    @functools.wraps(two)
    def wrapped(self, req, resp, number): ...

    @staticmethod
    def static(req, resp, number): ...

    @classmethod
    def of_class(cls, req, resp, number): ...

    def says_otherwise(self, req, resp, number): ...

    says_otherwise.__signature__ = inspect.signature(lambda self, req, resp: None)  # type: ignore[attr-defined]


RESPONDERS = [
    *(getattr(Resource(), name) for name in vars(Resource) if not name.startswith("__")),
    Resource.one,
    functools.partial(Resource.two, Resource(), name="x"),
    Resource,
    print,
]


@pytest.mark.parametrize("fields", [(), ("number",), ("number", "name"), ("other",), ("req",)])
@pytest.mark.parametrize("responder", RESPONDERS)
def test_a_responder_takes_what_inspect_says_it_takes(
    responder: Callable[..., Any], fields: tuple[str, ...]
) -> None:
    try:
        inspect.signature(responder, follow_wrapped=False).bind(None, None, **dict.fromkeys(fields))
        expected = True
    except TypeError:
        expected = False
    except ValueError:
        expected = True  # it has none
    assert (responder_fault(responder, fields) is None) == expected
