"""Our method maps are Falcon's own."""

from typing import Any

import pytest
from falcon.constants import COMBINED_METHODS
from falcon.routing import map_http_methods, set_default_responders
from falcon.routing.util import SuffixedMethodNotFoundError

from app.loading.method_maps import add_default_responders, responders_of


class Plain:
    on_put = None
    on_patch = "no responder"

    def on_get(self, req: Any, resp: Any) -> None: ...

    def on_get_item(self, req: Any, resp: Any) -> None: ...

    def on_delete_item(self, req: Any, resp: Any) -> None: ...

    def on_websocket(self, req: Any, socket: Any) -> None: ...


class Dynamic:
    """Answers all but one, by names that are made when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "on_post":
            raise AttributeError(name)
        return print


class Broken:
    @property
    def on_get(self) -> Any:
        raise ZeroDivisionError

    @property
    def on_post(self) -> Any:
        raise AttributeError("of what it asks in turn")


@pytest.mark.parametrize("suffix", [None, "", "item"])
@pytest.mark.parametrize("resource", [Plain(), Dynamic(), object(), None, Plain])
def test_a_resource_answers_the_methods_that_falcon_finds(resource: object, suffix: str) -> None:
    try:
        expected = list(map_http_methods(resource, suffix=suffix).items())
    except SuffixedMethodNotFoundError as error:
        with pytest.raises(SuffixedMethodNotFoundError, match=error.message):
            responders_of(resource, suffix)
    else:
        assert list(responders_of(resource, suffix).items()) == expected


def test_what_a_resource_raises_when_it_is_asked_goes_on_as_in_falcon() -> None:
    for ask in (map_http_methods, responders_of):
        with pytest.raises(ZeroDivisionError):
            ask(Broken())


@pytest.mark.parametrize(
    "given", [(), ("GET",), ("POST", "GET"), ("OPTIONS",), COMBINED_METHODS, ("GET", "WEBSOCKET")]
)
def test_the_other_methods_are_answered_as_by_falcon(given: tuple[str, ...]) -> None:
    expected: dict[str, Any] = dict.fromkeys(given, "given")
    set_default_responders(expected)
    for _ in range(2):  # the second time from what is remembered
        found = dict.fromkeys(given, "given")
        add_default_responders(found)
        assert list(found) == list(expected)
        assert [_shown(r) for r in found.values()] == [_shown(r) for r in expected.values()]


def _shown(responder: Any) -> Any:
    """Return what tells a responder of Falcon's from another one: its name, and what it allows."""
    if responder == "given":
        return responder
    return responder.__qualname__, [cell.cell_contents for cell in responder.__closure__]
