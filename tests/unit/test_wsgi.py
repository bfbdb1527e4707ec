"""What the import of the WSGI callable leaves: nothing that a fork would share."""

import functools
import json
import posixpath
import subprocess
import sys
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from app import hooks, wsgi
from app.workers.hook_check import HOOKS, faulty_hooks, sentence
from app.wsgi import Entry

WALK = r"""
import gc, io, json, mmap, os, re, socket, sys, threading, types, uuid, weakref
import gunicorn.app.base, gunicorn.arbiter, gunicorn.workers.gthread
before = set(os.listdir("/proc/self/fd"))
from app.wsgi import application
import app.hooks

LEFT_OUT = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType)
SHARED = (io.IOBase, mmap.mmap, socket.socket, threading.Thread, threading.local, uuid.UUID)
STREAMS = {id(sys.stdin), id(sys.stdout), id(sys.stderr)}
found, seen = [], set()
left = [application]
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "app":
        left += [value for value in vars(module).values() if not isinstance(value, LEFT_OUT)]
while left:
    value = left.pop()
    if id(value) in seen or id(value) in STREAMS or isinstance(value, LEFT_OUT):
        continue
    seen.add(id(value))
    if isinstance(value, SHARED):
        found.append(repr(value))
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        found.append(value)
    if isinstance(value, types.MethodType) or not type(value).__module__.startswith("logging"):
        left += gc.get_referents(value)
print(json.dumps({
    "objects": found,
    "descriptors": sorted(set(os.listdir("/proc/self/fd")) - before),
    "threads": threading.active_count(),
    "walked": len(seen),
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")
def test_the_import_makes_nothing_that_a_fork_would_share():
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.pop("walked") > 100
    assert found == {"objects": [], "descriptors": [], "threads": 1}
    assert done.stderr == ""


def configured(**replaced) -> Config:
    configuration = Config()
    for name in HOOKS:
        configuration.set(name, replaced.get(name, getattr(hooks, name)))
    return configuration


def test_all_hooks_in_place_is_no_fault():
    assert faulty_hooks(configured()) == {}


def test_the_import_line_gives_the_worker_class_and_the_hooks_and_nothing_else():
    assert set(hooks.__all__) == {"worker_class", *HOOKS}
    assert set(hooks.__all__) <= set(Config().settings)


def test_a_configuration_without_hooks_lacks_them_all():
    assert faulty_hooks(Config()) == dict.fromkeys(HOOKS, "missing")


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_of_somebody_elses_is_named_with_its_place(name):
    arity = 2 if name == "worker_exit" else 1
    own = (lambda a, b: None) if arity == 2 else (lambda a: None)
    faults = faulty_hooks(configured(**{name: own}))
    assert list(faults) == [name]
    assert faults[name].startswith(f"overwritten by {__file__}:")
    said = sentence(faults)
    assert f"@functools.wraps(hooks.{name})" in said
    assert "from app.hooks import *" in said


def test_one_that_calls_ours_and_says_so_is_as_good():
    @functools.wraps(hooks.post_worker_init)
    def own(worker):
        hooks.post_worker_init(worker)

    assert faulty_hooks(configured(post_worker_init=own)) == {}


@pytest.mark.parametrize(
    ("gunicorn", "words"),
    [
        (None, "post_worker_init (missing)"),
        (SimpleNamespace(cfg=Config()), "on_starting (missing)"),
        (SimpleNamespace(cfg=configured()), "This worker was never set up"),
    ],
)
def test_without_a_server_every_answer_is_503_with_the_reason(gunicorn, words):
    started = []
    body = Entry(gunicorn)({}, lambda *arguments: started.append(arguments))
    assert started[0][0].startswith("503 ")
    assert words in json.loads(b"".join(body))["detail"]


@pytest.mark.parametrize("named", [None, "app.wsgi:application", "posixpath:join"])
def test_what_a_file_names_goes_before_benana(monkeypatch, named):
    cfg = SimpleNamespace(wsgi_app=named)
    monkeypatch.setattr(wsgi.application, "_gunicorn", SimpleNamespace(cfg=cfg))
    assert wsgi.configured() is (posixpath.join if named == "posixpath:join" else wsgi.application)
