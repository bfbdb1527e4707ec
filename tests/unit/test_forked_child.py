"""A child that a plugin forks, and that comes back from the plugin's code, ends there."""

import subprocess
import sys

PROGRAM = """
import os, sys
import falcon
from app.loading.forked_child import run_in_parent
from app.routing.application import LiveApp
from app.routing.forked_requests import end_request
from tests.support.wsgi import call, put

app, program = LiveApp(), os.getpid()

def fork():
    pid = os.fork()
    if pid == 0:
        end_request(app.running)
        return True
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return False

def says(text):
    def on_get(req, resp):
        if fork():
            exec(text)
        resp.text = "answered"
    return on_get

def streams(req, resp):
    def parts():
        yield b"answered"
        fork()
    resp.stream = parts()

def nested(req, resp):
    if fork():
        print(call(app, "/plain").read(), flush=True)
        sys.exit(3)
    resp.text = "answered"

def plain(req, resp):
    resp.text = "plain"

CASES = "pass", "sys.exit()", "sys.exit(7)", "sys.exit('why')", "1 / 0", "raise falcon.HTTPGone"
names = {f"/case{number}": says(text) for number, text in enumerate(CASES)}
names |= {"/streams": streams, "/nested": nested, "/plain": plain}
put(app, "forks", names)
for path in names:
    print(path, call(app, path).read(), flush=True)
    assert os.getpid() == program

def load(text):
    if fork():
        exec(text)
    return "loaded"

for text in CASES:
    print(run_in_parent(load, text), flush=True)
    assert os.getpid() == program
"""


def test_a_forked_child_ends_as_its_handler_or_its_load_does_with_the_code_that_it_gave():
    done = subprocess.run(
        # Python 3.12 warns of a fork among threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    codes = (0, 0, 7, 1, 1, 1)
    requests = [f"{code}\n/case{number} b'answered'" for number, code in enumerate(codes)]
    others = ["0\n/streams b'answered'", "b'plain'\n3\n/nested b'answered'", "/plain b'plain'"]
    loads = [f"{code}\nloaded" for code in codes]
    assert done.stdout.splitlines() == "\n".join(requests + others + loads).splitlines()
    assert done.stderr.count("why\n") == done.stderr.count("ZeroDivisionError") == 2
