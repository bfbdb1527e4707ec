"""`/swagger` in a real browser: it shows what is live, executes it, and follows an edit."""

import contextlib

import pytest

from tests.support.browser import CHROMIUM, browser
from tests.support.plugins import MODELS
from tests.support.server import MakeServer, Server
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(CHROMIUM is None, reason="it takes chromium"),
]

OPERATION = '[id^="operations-models-"][id$="create"]'
ANSWER = f"{OPERATION} .live-responses-table tbody .response-col_status"


def test_it_shows_an_operation_executes_it_and_follows_an_edit(server: Server) -> None:
    server.write("models", MODELS)
    server.wait_everywhere("/models", lambda answer: answer.status == 200, 30.0)
    url = f"http://127.0.0.1:{server.port}"
    with browser() as page:
        page.open(url)
        page.wait("location.pathname === '/swagger'", "the root leads to the page")
        page.click(f"{OPERATION} .opblock-summary-control")
        field = f"{OPERATION} input[placeholder='customer']"
        page.wait(f"!!document.querySelector({field!r})", "the operation shows its parameter")
        page.run(
            f"""(() => {{
                const field = document.querySelector({field!r});
                const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
                set.set.call(field, "ada");
                field.focus();
                field.dispatchEvent(new Event("input", {{ bubbles: true }}));
                field.blur();  // it counts only then, or a moment later
            }})()"""
        )
        page.click(f"{OPERATION} .execute")
        page.wait(
            f"document.querySelector({ANSWER!r})?.innerText.includes('201')", "it is answered"
        )
        shown = f"{OPERATION} .live-responses-table"
        page.wait(
            f'document.querySelector({shown!r})?.innerText.includes(\'"customer": "ada"\')',
            "with what was typed",
        )
        edited = MODELS.replace("count: int = 1", "colour: str")
        server.write("models", edited.replace("self.create)", "self.create, summary='Order now')"))
        page.wait(
            f"document.querySelector({OPERATION!r})?.innerText.includes('Order now')",
            "the page follows the edit",
        )
        # One worker follows after the other, and the page asks whichever answers.
        server.wait_everywhere("/openapi.json", lambda answer: b"colour" in answer.body, 60.0)
        # What was open and was typed is still there.
        page.wait(f"document.querySelector({field!r})?.value === 'ada'", "what was typed stays")
        assert not page.said


def test_the_admin_api_is_shown_to_who_has_the_token(make_server: MakeServer) -> None:
    server = make_server(BENANA_ADMIN_TOKEN="secret").start()
    with browser() as page:
        page.open(f"http://127.0.0.1:{server.port}/swagger")
        page.wait("!!document.querySelector('.opblock')", "the plugins are shown")
        page.wait("!document.getElementById('token').hidden", "the token can be given")
        assert "/plugins" not in page.text("#swagger-ui")
        page.run("document.querySelector('#token input').value = 'wrong'")
        page.click("#token button")
        page.wait("document.getElementById('state').innerText", "a wrong token is said to be one")
        page.run("document.querySelector('#token input').value = 'secret'")
        page.click("#token button")
        page.wait(
            "document.getElementById('swagger-ui').innerText.includes('/plugins/{name}/reload')",
            "the admin API is shown",
        )
        found = '[id^="operations-Benana-"][id$="get_plugins"]'
        page.click(f"{found} .opblock-summary-control")
        answered = f"{found} .live-responses-table tbody .response-col_status"
        says = f"document.querySelector({answered!r})?.innerText.includes('200')"
        # Clicked again where nothing comes: the page follows the document, and what is drawn anew
        # between a click and its answer shows none.
        for seconds in (10.0, 20.0, 30.0):
            page.click(f"{found} .execute")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: page.run(says), "it answers", seconds)
                break
        assert page.run(says), page.said
        assert not page.said
