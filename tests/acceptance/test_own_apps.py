"""A plugin with middleware and the like of its own, on a real server, edited under load."""

import threading
from collections import Counter

from tests.support.server import Answer, Server, ask
from tests.support.waiting import wait_until

PLUGIN = """
import falcon

from app.plugin import PluginMetadata

EDIT = {edit}


class Stock:
    def on_get(self, req, resp, number):
        if number == 13:
            raise LookupError("no luck")
        resp.media = {{"edit": EDIT, "seen": req.context.edit}}


class Marks:
    def process_request(self, req, resp):
        req.context.edit = EDIT

    def process_response(self, req, resp, resource, req_succeeded):
        resp.set_header("X-Edit", str(EDIT))
        resp.set_header("X-Route", str(req.uri_template))


def no_luck(req, resp, ex, params):
    resp.status = falcon.HTTP_410
    resp.media = {{"edit": EDIT, "gone": params["number"]}}


class Shop:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("{name}", "1")

    def register_routes(self, server):
        server.add_middleware([Marks(), falcon.CORSMiddleware("https://a.example")])
        server.add_error_handler(LookupError, no_luck)
        server.group("/{name}").add_route("/stock/{{number:int}}", Stock())

    def cleanup(self, context):
        pass


def new_plugin():
    return Shop()
"""


def write(server: Server, name: str, edit: int) -> None:
    server.write(name, PLUGIN.format(name=name, edit=edit))


def wait_for(server: Server, edit: int, name: str = "shop") -> None:
    server.wait_everywhere(
        f"/{name}/stock/7",
        lambda answer: answer.status == 200 and answer.json["edit"] == edit,
    )


def edit_of(answer: Answer) -> int:
    """Return whose answer it is: of one edit from its first middleware to its last."""
    edit = int(answer.headers["x-edit"])
    if answer.status == 200:
        assert answer.json == {"edit": edit, "seen": edit}
    elif answer.status == 410:
        assert answer.json == {"edit": edit, "gone": 13}
    else:
        assert answer.status == 404
        assert answer.headers["x-route"] == "None"
    return edit


def test_each_request_has_the_middleware_and_the_responder_of_one_edit(server: Server) -> None:
    write(server, "shop", 0)
    paths = ["/shop/stock/7", "/shop/stock/13", "/shop/nothing"]
    wait_until(lambda: server.get(paths[0]).status == 200, "it is served")
    asked: Counter[int] = Counter()
    faults: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for path in paths:
                try:
                    asked[edit_of(server.get(path))] += 1
                except (AssertionError, KeyError, OSError) as fault:
                    faults.append(f"{path}: {fault!r}")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for edit in range(1, 9):
        write(server, "shop", edit)
        wait_for(server, edit)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(asked) == 9


def test_what_a_plugin_sets_up_goes_with_it_and_is_nobody_elses(server: Server) -> None:
    write(server, "fair", 0)
    wait_until(lambda: server.get("/fair/stock/7").status == 200, "it is served")
    for path in ("/whoami", "/unknown", "/health/ready", "/plugins"):
        assert "x-edit" not in server.get(path).headers
    preflight = server.call(
        "OPTIONS",
        "/fair/stock/7",
        headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"},
    )
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    text = PLUGIN.format(name="fair", edit=1)
    text = "\n".join(line for line in text.splitlines() if "add_middleware" not in line)
    server.write("fair", text.replace("req.context.edit}", '"nobody"}'))
    server.wait_everywhere("/fair/stock/7", lambda answer: answer.json.get("seen") == "nobody")
    assert "x-edit" not in server.get("/fair/stock/7").headers
    assert server.get("/fair/stock/13").status == 410


def test_what_falcon_refuses_is_refused_with_its_line(server: Server) -> None:
    text = PLUGIN.format(name="wrong", edit=0).replace("[Marks(), ", "[object(), ")
    server.write("wrong", text)
    wait_until(
        lambda: server.get("/plugins/wrong").json.get("error", {}).get("phase"), "it is refused"
    )
    error = server.get("/plugins/wrong").json["error"]
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "object()" in line)
    assert (error["phase"], error["file"], error["line"]) == ("register_routes", "main.py", line)


def test_where_one_process_runs_the_plugin_its_middleware_is_everywhere(server: Server) -> None:
    folder = server.plugins / "alone"
    folder.mkdir()
    (folder / "plugin.yaml").write_text("exclusive: host\n")
    write(server, "alone", 0)
    wait_until(lambda: server.get("/alone/stock/7").status == 200, "it is served")
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    for edit in range(3):
        write(server, "alone", edit)
        wait_for(server, edit, "alone")
        with server.each_worker() as connections:
            for connection in connections.values():
                assert edit_of(ask(connection, "GET", "/alone/stock/13")) == edit
                answer = ask(connection, "OPTIONS", "/alone/stock/7", headers=preflight)
                assert answer.headers["access-control-allow-origin"] == "https://a.example"
                assert ask(connection, "POST", "/alone/stock/7").status == 405
