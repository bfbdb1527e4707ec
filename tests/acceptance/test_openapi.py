"""The OpenAPI document over real HTTP: it follows the plugins, whichever worker answers."""

import shutil
from collections.abc import Callable
from typing import Any

from tests.support.checkout import CHECKOUT
from tests.support.openapi import checked, followed, schema_at
from tests.support.plugins import MODELS, source
from tests.support.server import Answer, MakeServer, Server

SECONDS = 30.0
"""How long a busy machine may take."""


def wait_document(
    server: Server, expected: Callable[[Any], bool], path: str = "/openapi.json"
) -> Any:
    """Wait until every worker's document is as expected, and return it once it was checked."""

    def fits(answer: Answer) -> bool:
        return answer.status == 200 and expected(answer.json)

    server.wait_everywhere(path, fits, SECONDS)
    return checked(server.get(path).body)


def test_the_document_is_valid_whatever_happens_to_the_plugins(server: Server) -> None:
    booted = checked(server.get("/openapi.json").body)
    assert {"/plugins", "/plugins/{name}/reload", "/health/ready", "/whoami"} <= set(
        booted["paths"]
    )
    server.write("models", MODELS)
    loaded = wait_document(server, lambda found: "/models/{customer}" in found["paths"])
    operation = loaded["paths"]["/models/{customer}"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    order = followed(loaded, body)
    assert order["required"] == ["number", "items"]
    item = followed(loaded, order["properties"]["items"]["items"])
    assert item["properties"].keys() == {"name", "count"}
    assert {"400", "413", "422", "default"} <= operation["responses"].keys()
    server.write("models", MODELS.replace("count: int = 1", "colour: str"))
    edited = wait_document(
        server,
        lambda found: "colour" in found["components"]["schemas"]["models.Item"]["properties"],
    )
    assert edited["paths"].keys() == loaded["paths"].keys()
    assert server.post("/plugins/models/toggle").status == 200
    without = wait_document(server, lambda found: "/models/{customer}" not in found["paths"])
    assert not any(name.startswith("models.") for name in without["components"]["schemas"])
    assert server.get("/plugins/models/openapi.json").status == 404
    assert server.post("/plugins/models/toggle").status == 200
    wait_document(server, lambda found: "/models/{customer}" in found["paths"])
    shutil.rmtree(server.plugins / "models")
    removed = wait_document(server, lambda found: "/models/{customer}" not in found["paths"])
    assert removed["paths"].keys() == booted["paths"].keys()


def test_plugins_that_know_no_types_are_in_it(server: Server) -> None:
    hello = CHECKOUT / "plugins" / "hello" / "main.py"
    server.write("hello", hello.read_text())
    whole = wait_document(server, lambda found: "/hello" in found["paths"])
    assert whole["paths"]["/hello"].keys() >= {"get", "post"}
    assert whole["paths"]["/hello"]["get"]["operationId"] == "hello.handle_get"


def test_what_one_plugin_cannot_say_costs_no_other_its_description(server: Server) -> None:
    bare = 'responses={404: {"description": "x", "x-limit": float("inf")}}'
    content = '{"application/json": {"schema": {"$ref": "#/components/schemas/Lost"}}}'
    lost = f'responses={{404: {{"description": "x", "content": {content}}}}}'
    server.write("models", MODELS.replace("count: int = 1", 'count: float = float("inf")'))
    for name, option in (("bare", bare), ("lost", lost)):
        written = source(name)
        edited = written.replace("self.get)", f"self.get, {option})")
        assert edited != written
        server.write(name, edited)
    wanted = {"/models/{customer}", "/bare", "/lost"}
    whole = wait_document(server, lambda found: wanted <= found["paths"].keys())
    properties = whole["components"]["schemas"]["models.Item"]["properties"]
    assert "default" not in properties["count"]
    for name in ("bare", "lost"):
        assert "404" not in whole["paths"][f"/{name}"]["get"]["responses"]
        own = checked(server.get(f"/plugins/{name}/openapi.json").body)
        assert own["paths"].keys() == {f"/{name}"}
        (lack,) = own["x-benana-lacks"]
        reason = {"plugin": name, "what": lack, "degrades": False}
        assert reason in server.get(f"/plugins/{name}").json["reasons"]
    log = server.log()
    assert "bare: its routes cannot be described: what is said of /bare is no JSON" in log
    assert "lost: its routes cannot be described: /lost refers to #/components/schemas/Lost" in log


def test_each_plugin_has_a_document_of_its_own(server: Server) -> None:
    server.write("alone", source("alone"))
    server.wait_everywhere("/alone", lambda answer: answer.status == 200, SECONDS)
    document = checked(server.get("/plugins/alone/openapi.json").body)
    assert document["info"]["title"] == "alone"
    assert document["paths"].keys() == {"/alone"}
    missing = server.get("/plugins/nobody/openapi.json")
    assert missing.status == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert "nobody is not served" in missing.json["detail"]


def test_a_document_that_is_known_is_not_sent_again(server: Server) -> None:
    server.write("known", source("known"))
    server.wait_everywhere("/known", lambda answer: answer.status == 200, SECONDS)
    first = server.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    again = server.get("/openapi.json", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    # One tag for all workers: the document depends on what is served, not on who answers.
    tag = first.headers["etag"]
    server.wait_everywhere("/openapi.json", lambda found: found.headers["etag"] == tag, SECONDS)
    server.write("known", source("known").replace("server.get(", "server.put(", 1))
    wait_document(server, lambda found: "put" in found["paths"]["/known"])
    after = server.get("/openapi.json", **{"If-None-Match": first.headers["etag"]})
    assert after.status == 200
    assert after.headers["etag"] != first.headers["etag"]


def test_of_an_exclusive_plugin_all_workers_say_the_same(server: Server) -> None:
    text = MODELS.replace('"models"', '"alone_one"').replace("/models", "/alone_one")
    server.write("alone_one", "exclusive: true\n", "plugin.yaml")
    server.write("alone_one", text)
    server.wait_everywhere("/alone_one", lambda answer: answer.status == 200, SECONDS)
    path = "/alone_one/{customer}"
    whole = wait_document(server, lambda found: path in found["paths"])
    tag = server.get("/openapi.json").headers["etag"]
    server.wait_everywhere("/openapi.json", lambda found: found.headers["etag"] == tag, SECONDS)
    assert "requestBody" not in whole["paths"][path]["post"]
    for answer in server.ask_all("/plugins/alone_one/openapi.json").values():
        assert answer.status == 200
        document = checked(answer.body)
        assert "requestBody" in document["paths"][path]["post"]
        assert "Order" in document["components"]["schemas"]


def test_with_a_token_the_admin_api_is_shown_to_who_may_read_it(make_server: MakeServer) -> None:
    server = make_server(BENANA_ADMIN_TOKEN="secret", WEB_CONCURRENCY="1").start()
    open_to_all = checked(server.get("/openapi.json").body)
    assert not any(path.startswith("/plugins") for path in open_to_all["paths"])
    assert "securitySchemes" not in open_to_all["components"]
    whole = checked(server.get("/openapi.json", Authorization="Bearer secret").body)
    assert {"/plugins", "/whoami"} <= whole["paths"].keys()
    assert whole["paths"]["/plugins"]["get"]["security"] == [{"Benana.token": []}]
    assert server.get("/plugins/whoami/openapi.json").status == 200
    schema = schema_at(whole, "get", "/plugins/{name}")
    shown = server.get("/plugins/whoami", Authorization="Bearer secret").json
    assert set(schema["required"]) <= shown.keys() <= schema["properties"].keys()
