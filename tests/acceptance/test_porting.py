"""docs/porting.md: what an application becomes as a plugin runs, and follows its edits."""

import re
from collections.abc import Callable

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.server import Answer, Server

BLOCK = re.compile(r"```python\n# (?P<path>[\w/.]+)\n(?P<text>.*?)```", re.DOTALL)

NOTES = """
import falcon


class NoNote(Exception):
    pass


def no_note(req, resp, ex, params):
    raise falcon.HTTPNotFound(title="No note", description=f"There is no note {ex}.")


class Store:
    def __init__(self, folder):
        self.folder = folder
        self.is_open = True

    def close(self):
        self.is_open = False

    def add(self, text):
        number = len(list(self.folder.iterdir())) + 1
        (self.folder / str(number)).write_text(text)
        return number

    def read(self, number):
        path = self.folder / str(number)
        if not path.exists():
            raise NoNote(number)
        return path.read_text()


class Notes:
    def __init__(self, store):
        self.store = store

    def on_post(self, req, resp):
        resp.media = {"number": self.store.add(req.media["text"]), "by": req.context.user}

    def on_get_one(self, req, resp, number):
        resp.media = {"text": self.store.read(number), "by": req.context.user}
"""

SESSIONS = """
import falcon


class Sessions:
    def process_request(self, req, resp):
        req.context.user = req.get_header("X-User")
        if req.method == "POST" and req.context.user is None:
            raise falcon.HTTPUnauthorized(description="Say who you are in X-User.")
"""


def block(path: str) -> str:
    """Return a file that stands in docs/porting.md."""
    text = (CHECKOUT / "docs" / "porting.md").read_text()
    return next(found["text"] for found in BLOCK.finditer(text) if found["path"] == path)


def test_a_falcon_application(server: Server) -> None:
    server.write("notes", NOTES, "notes.py")
    server.write("notes", SESSIONS, "sessions.py")
    server.write("notes", block("plugins/notes/main.py"))
    server.wait_everywhere("/notes/7", lambda answer: b"There is no note 7" in answer.body)
    assert server.post("/notes", {"text": "milk"}).status == 401
    added = server.post("/notes", {"text": "milk"}, **{"X-User": "Ada"})
    assert added.json == {"number": 1, "by": "Ada"}
    found = server.get("/notes/1", Origin="https://a.example")
    assert found.json == {"text": "milk", "by": None}
    assert found.headers["access-control-allow-origin"] == "*"
    missing = server.get("/notes/2")
    assert (missing.status, missing.json["title"]) == (404, "No note")
    server.write("notes", NOTES.replace('"text": self', '"note": self'), "notes.py")
    server.wait_everywhere("/notes/1", lambda answer: b'"note"' in answer.body)


def test_its_lines_are_those_of_the_application() -> None:
    """But for the constructor, each `app.` line is there as a `server.` line."""
    lines = [line.strip() for line in block("app.py").splitlines() if "app." in line]
    ported = block("plugins/notes/main.py").replace("self.store", "store")
    assert [line for line in lines if "falcon.App(" not in line]
    for line in lines:
        if line.startswith("app."):
            assert line.replace("app.", "server.", 1) in ported


def look(file: str) -> str:
    return (CHECKOUT / "tests" / "cases" / "falcon" / "look" / file).read_text()


HOOK = """
ALLOWED_IMAGE_TYPES = (
    'image/gif',
    'image/jpeg',
    'image/png',
)


def validate_image_type(req, resp, resource, params):
    if req.content_type not in ALLOWED_IMAGE_TYPES:
        msg = 'Image type not allowed. Must be PNG, JPEG, or GIF'
        raise falcon.HTTPBadRequest(title='Bad request', description=msg)


"""
"""As Falcon's tutorial adds it to the example ("Introducing Hooks")."""


def test_falcons_example_and_its_tutorial(server: Server) -> None:
    server.write("images", look("images.py"), "images.py")
    server.write("images", look("main.py"))
    server.wait_everywhere("/images", lambda answer: answer.status == 200)
    assert server.get("/images").json == {"images": []}

    def post(body: bytes, media_type: str = "image/png") -> Answer:
        return server.call("POST", "/images", body, {"Content-Type": media_type})

    sizes = {}
    for body in (b"First Case\n", b"Second Case\n", b"3rd Case\n"):
        posted = post(body)
        assert posted.status == 201
        sizes[posted.headers["location"]] = len(body)
        found = server.get(posted.headers["location"])
        assert (found.body, found.headers["content-type"]) == (body, "image/png")
    small = server.get("/images?maxsize=11").json["images"]
    assert {image["href"] for image in small} == {path for path, n in sizes.items() if n <= 11}
    assert server.get("/images?maxsize=0").status == 400

    hooked = look("images.py").replace("class Collection", f"{HOOK}class Collection")
    hooked = hooked.replace(
        "    def on_post(", "    @falcon.before(validate_image_type)\n    def on_post("
    )
    hooked = hooked.replace(
        "        resp.text =", "        resp.etag = 'hooked'\n        resp.text ="
    )
    server.write("images", hooked, "images.py")
    server.wait_everywhere("/images", lambda answer: "etag" in answer.headers)
    refused = post(b"", "image/jpx")
    assert (refused.status, refused.json["title"]) == (400, "Bad request")
    assert post(b"more").status == 201
    assert len(server.get("/images").json["images"]) == 4, "what was there before the edit"


@pytest.mark.soak
def test_a_flask_application(make_server: Callable[..., Server]) -> None:
    pytest.importorskip("flask")
    server = make_server().start()
    server.write("shop", block("plugins/shop/site.py"), "site.py")
    server.write("shop", "<a href={{ items }}>items</a>", "templates/index.html")
    server.write("shop", block("plugins/shop/main.py"))
    server.wait_everywhere("/shop/items", lambda answer: answer.status == 200)
    assert server.get("/shop/items").json == ["tea", "milk"]
    assert server.get("/shop/").body == b"<a href=/shop/items>items</a>"
    assert server.get("/shop/none").status == 404
    site = block("plugins/shop/site.py").replace('"tea"', '"coffee"')
    server.write("shop", site, "site.py")
    server.wait_everywhere("/shop/items", lambda answer: b"coffee" in answer.body)
