"""`/swagger` and `/`: what a browser is given, and what everybody else."""

from typing import Any

import falcon.testing
import pytest

from app.admin.swagger.pages import FILES, PAGE, STATIC, SwaggerResource
from app.admin.welcome import WELCOME, welcome_at_root
from app.loading.registration import RouteCollector
from app.loading.routes import SERVER, Route
from app.routing.application import LiveApp
from app.routing.server_routes import SWAGGER, SWAGGER_FILE


@pytest.fixture
def app() -> LiveApp:
    app = LiveApp()
    welcome_at_root(app)
    resource = SwaggerResource()
    builder = app.table.builder()
    builder.add(
        SERVER,
        (Route(SERVER, SWAGGER, resource), Route(SERVER, SWAGGER_FILE, resource, "file")),
    )
    app.swap(builder.build())
    return app


@pytest.fixture
def client(app: LiveApp) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(app)


def add(app: LiveApp, template: str) -> None:
    def own() -> dict[str, str]:
        return {"says": "mine"}

    collector = RouteCollector("shop", lambda _: None, "_plugins.shop.g1")
    collector.get(template, own)
    builder = app.table.builder()
    builder.add("shop", collector.finish())
    app.swap(builder.build())


def test_all_that_the_page_names_is_there(client: Any) -> None:
    page = client.simulate_get("/swagger")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    named = [part.partition('"')[0] for part in page.text.split('="swagger/')[1:]]
    assert sorted(named) == sorted(FILES - {PAGE})
    for name in named:
        found = client.simulate_get(f"/swagger/{name}")
        assert found.status_code == 200, name
        assert found.content == (STATIC / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["LICENSE", PAGE, "..", "../pages.py", "%2e%2e%2fpages.py", "pages.py", "a%00.js", ""]
)
def test_nothing_else_is_served(client: Any, name: str) -> None:
    assert client.simulate_get(f"/swagger/{name}").status_code == 404


def test_nothing_of_the_page_runs_or_comes_from_elsewhere(client: Any) -> None:
    page = client.simulate_get("/swagger")
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert "//" not in page.text


def test_a_file_that_is_known_is_not_sent_again(client: Any) -> None:
    first = client.simulate_get("/swagger/page.js")
    tag = first.headers["etag"]
    again = client.simulate_get("/swagger/page.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = client.simulate_get("/swagger/page.css", headers={"If-None-Match": tag})
    assert other.status_code == 200


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_is_led_to_the_page(client: Any, method: str) -> None:
    found = client.simulate_request(method, "/", headers={"Accept": BROWSER})
    assert (found.status_code, found.headers["location"]) == (303, "swagger")
    assert found.headers["vary"] == "Accept"


@pytest.mark.parametrize("accepted", [None, "*/*", "application/json", "text/plain", "x"])
def test_all_others_are_told_where_to_look(client: Any, accepted: str | None) -> None:
    headers = {} if accepted is None else {"Accept": accepted}
    found = client.simulate_get("/", headers=headers)
    assert (found.status_code, found.json) == (200, WELCOME)


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("DELETE", "/"), ("GET", "/x")])
def test_nothing_but_the_root_is_answered(client: Any, method: str, path: str) -> None:
    found = client.simulate_request(method, path, headers={"Accept": BROWSER})
    assert found.status_code == 404


def test_a_plugin_has_the_root_if_it_wants_it(app: LiveApp, client: Any) -> None:
    add(app, "/")
    found = client.simulate_get("/", headers={"Accept": BROWSER})
    assert found.json == {"says": "mine"}
    assert client.simulate_post("/").status_code == 405
