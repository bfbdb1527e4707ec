"""A plugin with middleware and the like of its own, on a real server, edited under load."""

import shutil
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
    wait_for(server, 0)
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

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for edit in range(1, 6):
        write(server, "shop", edit)
        wait_for(server, edit)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(asked) == 6


def test_what_a_plugin_sets_up_goes_with_it_and_is_nobody_elses(server: Server) -> None:
    write(server, "fair", 0)
    wait_for(server, 0, "fair")
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
    server.wait_everywhere("/fair/stock/7", lambda answer: b"nobody" in answer.body)
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


MOUNTS = """
import mimetypes
from pathlib import Path

import falcon

from app.plugin import PluginMetadata

EDIT = {edit}


class Inner:
    def on_get(self, req, resp):
        resp.media = {{"edit": EDIT, "below": req.root_path}}


def anything(req, resp, rest):
    resp.media = {{"edit": EDIT, "rest": rest}}


class Plugin:
    def initialize(self, context):
        pass

    def get_metadata(self):
        return PluginMetadata("many", "1")

    def register_routes(self, server):
        inner = falcon.App()
        inner.add_route("/inner", Inner())
        server.mount("/many/admin", inner)
        server.add_static_route("/many_files", Path(__file__).parent / "files")
        server.add_sink(anything, r"/many_sink/(?P<rest>.*)")

    def cleanup(self, context):
        pass


def new_plugin():
    return Plugin()
"""


def test_mounted_applications_sinks_and_files_follow_an_edit(server: Server) -> None:
    for edit in range(3):
        server.write("many", f"file {edit}", "files/one.txt")
        server.write("many", MOUNTS.format(edit=edit))
        server.wait_everywhere(
            "/many/admin/inner",
            lambda answer: answer.status == 200,
        )
        wait_until(lambda: _all_of(server) == {edit}, f"edit {edit} is everywhere")
    listed = {(e["method"], e["path"]) for e in server.get("/plugins/many").json["endpoints"]}
    assert ("*", "/many/admin") in listed
    assert ("*", "/many_sink/{path:path}") in listed
    shutil.rmtree(server.plugins / "many")
    for path in ("/many/admin/inner", "/many_files/one.txt", "/many_sink/x"):
        server.wait_everywhere(path, lambda answer: answer.status == 404)


def _all_of(server: Server) -> set[int]:
    """Return the edits that answer now, by whatever way they are asked."""
    found: set[int] = set()
    for answer in server.ask_all("/many/admin/inner").values():
        assert answer.json["below"] == "/many/admin"
        found.add(answer.json["edit"])
    for answer in server.ask_all("/many_sink/a/b").values():
        assert answer.json["rest"] == "a/b"
        found.add(answer.json["edit"])
    for answer in server.ask_all("/many_files/one.txt").values():
        assert answer.headers["content-type"] == "text/plain"
        found.add(int(answer.body.decode().removeprefix("file ")))
    return found
