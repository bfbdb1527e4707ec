"""Each route of the server is guarded, unless it says that it is open."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import falcon
import pytest
from falcon import testing

from app.admin.guard import Guard
from app.admin.routes import admin_routes
from app.loading.routes import Route
from app.responses import Problem
from app.routing.server_routes import RESERVED_SEGMENTS, TEMPLATES
from app.settings import Settings
from app.uri_templates import first_segment

OPEN = {
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/plugins/{name}/openapi.json",
    "/swagger",
    "/swagger/{file}",
}


def routes(manager: Mock, **settings: Any) -> tuple[Route, ...]:
    guard = Guard(replace(Settings.from_environment({}), **settings))
    return admin_routes(manager, guard, Mock())


def call(route: Route, method: str, **headers: str) -> None:
    environ = testing.create_environ(route.template, method=method, host="localhost")
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    request = falcon.Request(environ)
    fields = {"name": "hello"} if "{name}" in route.template else {}
    route.methods[method](request, falcon.Response(), **fields)


def test_no_route_of_the_server_answers_without_the_token_but_the_open_ones() -> None:
    manager = Mock()
    guarded = [
        route for route in routes(manager, admin_token="secret") if route.template not in OPEN
    ]
    assert len(guarded) + len(OPEN) == len(routes(manager))
    for route in guarded:
        for method in route.methods:
            with pytest.raises(Problem) as caught:
                call(route, method)
            assert caught.value.status == falcon.HTTP_401, (method, route.template)
    assert not manager.mock_calls


def test_a_method_that_may_change_something_is_guarded_as_a_write() -> None:
    manager = Mock()
    for route in routes(manager, bind="0.0.0.0:80"):
        for method in set(route.methods) - {"GET", "HEAD", "OPTIONS"}:
            if route.template in OPEN:
                continue
            with pytest.raises(Problem) as caught:
                call(route, method)
            assert "Admin writes are off" in str(caught.value.description), method
    assert not manager.mock_calls


def test_health_is_open() -> None:
    manager = Mock()
    manager.health.reasons = ()
    manager.health.status = "ready"
    for route in routes(manager):
        if route.template.startswith("/health"):
            call(route, "GET")


def test_no_route_of_the_server_begins_with_a_segment_that_a_plugin_may_have() -> None:
    every = routes(Mock())
    assert {route.template for route in every} == set(TEMPLATES)
    assert {first_segment(route.template) for route in every} < RESERVED_SEGMENTS
