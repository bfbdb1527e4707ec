"""The example plugin, tested as its author would."""

from pathlib import Path

import pytest

from app.testing import load_plugin

FOLDER = Path(__file__).parents[2] / "plugins" / "hello"


@pytest.fixture
def hello():
    with load_plugin(FOLDER) as plugin:
        yield plugin


def test_it_says_hello(hello):
    assert hello.client.get("/hello").json == {"message": "Hello from Benana!"}


@pytest.mark.parametrize("body", [{}, {"fruit": "banana", "é": [1, None]}])
def test_it_gives_back_what_it_is_sent(hello, body):
    assert hello.client.post_json("/hello", body).json == {"received": body}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 422), (b"no json", 400), (b"[1]", 422), (b'"text"', 422), (b"null", 422)],
)
def test_it_refuses_what_is_no_object(hello, body, status):
    answer = hello.client.post("/hello", body, status=status)
    assert answer.json["status"] == status
    assert answer.json["detail"]


def test_other_methods_are_refused(hello):
    assert set(hello.client.delete("/hello", status=405).headers["Allow"].split(", ")) >= {
        "GET",
        "POST",
    }


def test_it_names_itself(hello):
    assert (hello.metadata.name, hello.metadata.author) == ("hello", "Benana Team")
    assert [(found.method, found.path) for found in hello.endpoints] == [
        ("GET", "/hello"),
        ("POST", "/hello"),
    ]
