"""A forked child lets go of what is its parent's, and what it starts ends with whom it is for."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import psycopg2
import pytest

from app import descendants
from app.database import inherited
from app.database.pool import Database
from app.workers import children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and subreapers")

CHILD = """
import os, select, signal, socket, sys, time, threading
from types import SimpleNamespace
from app.workers.children import become_parent

listener, other = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
wakes = os.pipe()
os.set_blocking(wakes[1], False)
signal.set_wakeup_fd(wakes[1])
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
poller = select.epoll()
poller.register(listener, select.EPOLLIN)
holders = [SimpleNamespace(sock=listener)], [SimpleNamespace(sock=other[0])]
worker = SimpleNamespace(sockets=holders[0], connections=holders[1])
let_go = []
lock = threading.Lock()
lock.acquire()
become_parent(worker, lambda: let_go.append(os.getpid()))
"""


def run(code: str) -> str:
    """Run a worker's code in a process of its own, and return what it prints."""
    code = textwrap.dedent(code)
    done = subprocess.run(
        # Python 3.12 warns of a fork among threads, which is what a plugin may do.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", CHILD + code],
        check=True,
        capture_output=True,
        text=True,
        timeout=30.0,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_child_has_neither_handlers_nor_sockets_and_the_parent_keeps_both():
    said = run("""
        pid = os.fork()
        if pid == 0:
            print(signal.getsignal(signal.SIGTERM), listener.fileno(), other[0].fileno(),
                  signal.set_wakeup_fd(-1), len(let_go), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(let_go, listener.fileno() > 0, signal.set_wakeup_fd(-1) == wakes[1])
        socket.create_connection(listener.getsockname())
        print(poller.poll(5.0) != [])
    """)
    assert said.splitlines() == ["0 -1 -1 -1 1", "[] True True", "True"]


def test_a_signal_that_is_sent_to_a_new_child_at_once_ends_it():
    said = run("""
        ended = 0
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                time.sleep(20)
                os._exit(1)
            os.kill(pid, signal.SIGTERM)
            ended += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        print(ended, signal.pthread_sigmask(signal.SIG_BLOCK, []))
    """)
    assert said == "50 set()\n"


def test_a_fork_of_another_thread_leaves_that_threads_mask_as_it_was():
    said = run("""
        def work():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            pid = os.fork()
            if pid == 0:
                print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """)
    assert said.splitlines() == ["{<Signals.SIGUSR1: 10>}"] * 2


def start(code: str) -> subprocess.Popen[str]:
    """Start a process that says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys, time\n{textwrap.dedent(code)}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_descendants_are_ended_however_they_take_a_signal():
    polite = start("print('ready', flush=True); time.sleep(60)")
    stubborn = start(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    spared = start("print('ready', flush=True); time.sleep(60)")
    others = set(descendants.own_children()) - {polite.pid, stubborn.pid}
    began = time.monotonic()
    descendants.end_descendants(spared=others, grace=0.2)
    assert time.monotonic() - began < 1.2
    assert (polite.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)
    assert spared.poll() is None, "and how they ended is there for who asks"
    spared.kill()
    spared.wait()
    for process in (polite, stubborn, spared):
        assert process.stdout is not None
        process.stdout.close()


WORKER = """
from app import descendants
descendants.adopter()()
child = os.fork()
if child == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    if os.fork() > 0:  # ends at once when it is told to; its own child does not
        time.sleep(60)
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(60)
    os._exit(0)
os.waitpid(child, 0)
time.sleep(60)
"""

MASTER = """
import os, signal, subprocess, sys, time
from app import descendants
from app.workers.orphans import Orphans

def start(code):
    command = [sys.executable, "-c", "import os, signal, time\\n" + code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\\n"
    return process

orphans = Orphans()
own = start("print('ready', flush=True); time.sleep(60)")
workers = [start(WORKER), start(WORKER)]
pids = {process.pid for process in workers}
assert not orphans.look(pids)
assert not orphans.look(pids)
deadline = time.monotonic() + 10.0
grandchildren = set()
while len(grandchildren) != 4:  # what made the daemons may not have ended yet
    assert time.monotonic() < deadline
    daemons = {pid for worker in pids for pid in descendants.children_of(worker)}
    grandchildren = daemons | {pid for daemon in daemons for pid in descendants.children_of(daemon)}
workers[0].kill()
deadline = time.monotonic() + 10.0
while not any(descendants.look_up(pid).ended for pid in pids):
    time.sleep(0.01)
looks = 0
while orphans.look(pids):
    looks += 1
    assert time.monotonic() < deadline
    for pid in grandchildren:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
    time.sleep(0.02)
late = start("print('ready', flush=True); time.sleep(60)")
workers[0].wait()
assert not orphans.look(pids - {workers[0].pid})
assert not orphans.look(pids - {workers[0].pid})
left = [pid for pid in grandchildren if descendants.look_up(pid)]
print(looks > 0, len(left), own.poll(), late.poll(), workers[1].poll())
for process in (own, late, workers[1]):
    process.kill()
descendants.end_all()
"""


def test_the_master_ends_what_a_killed_worker_has_left_and_spares_its_own():
    done = subprocess.run(
        [sys.executable, "-c", f"WORKER = {WORKER!r}\n{MASTER}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert (done.stdout, done.returncode) == ("True 2 None None None\n", 0), done.stderr


HALF_ENDED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from app import descendants
from app.workers.orphans import Orphans

# A worker that is killed ends thread by thread, here the first one long before the rest.
WORKER = '''
import ctypes, os, threading, time
def work():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("ready", flush=True)
    time.sleep(60)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
'''
orphans = Orphans()
worker = subprocess.Popen(
    [sys.executable, "-W", "ignore::DeprecationWarning", "-c", WORKER], stdout=subprocess.PIPE
)
assert not orphans.look({worker.pid})
assert worker.stdout.readline() == b"ready\\n"
deadline = time.monotonic() + 10.0
while b") Z " not in Path(f"/proc/{worker.pid}/stat").read_bytes():
    assert time.monotonic() < deadline
    time.sleep(0.01)
(child,) = descendants.children_of(worker.pid)
assert not orphans.look({worker.pid})
worker.kill()
while (left := descendants.look_up(child)) and not left.ended:
    assert time.monotonic() < deadline, "what the worker had started is taken for the master's own"
    orphans.look({worker.pid})
    time.sleep(0.02)
print("ended")
"""


def test_a_worker_whose_first_thread_has_ended_still_has_what_it_started():
    done = subprocess.run(
        [sys.executable, "-c", HALF_ENDED],
        check=False,
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


STOPPED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
from gunicorn.arbiter import Arbiter as GunicornArbiter
from app import descendants
from app.serving.crashes import CrashedLoads
from app.workers.arbiter import Arbiter
from app.workers.orphans import Orphans

# What they start does not end by SIGTERM, and of the generations each leaves the next one behind.
WORKER = '''
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "60"], start_new_session=True)
for _ in range(5):
    if os.fork() > 0:
        break
    os.setsid()
time.sleep(60)
'''

def start(code):
    return subprocess.Popen([sys.executable, "-c", code])

def below(pid):
    found = descendants.children_of(pid)
    return found + [each for child in found for each in below(child)]

class Log:
    def __getattr__(self, name):
        return lambda *_: None

master = object.__new__(GunicornArbiter)
master.log, master.LISTENERS, master._stats = Log(), [], {"workers_killed": 0}
master.systemd, master.reexec_pid, master.master_pid, master.dirty_arbiter_pid = False, 0, 0, 0
master.app, reaped = None, []
master.cfg = SimpleNamespace(
    graceful_timeout=0, reuse_port=False, uid=os.geteuid(), gid=os.getegid(),
    child_exit=lambda _master, worker: reaped.append(worker.pid),
)
Arbiter.look_after(master, CrashedLoads(Path(sys.argv[1])), Orphans())
own = start("import time; time.sleep(60)")
master.WORKERS = {}
master._look_for_orphans()
workers = [start(WORKER) for _ in range(2)]
tmp = SimpleNamespace(_tmp=SimpleNamespace(closed=False), close=lambda: None)
for process in workers:
    master.WORKERS[process.pid] = SimpleNamespace(pid=process.pid, tmp=tmp, age=1)
master._look_for_orphans()
deadline = time.monotonic() + 20.0
# Each has its sleeper, and five generations.
while len(left := [pid for process in workers for pid in below(process.pid)]) < 2 * (1 + 5):
    assert time.monotonic() < deadline, left
    time.sleep(0.01)
master.stop()
living = [pid for pid in left if not descendants.has_ended(pid)]
print(len(left), living, master.WORKERS, len(reaped), descendants.own_children() == [own.pid])
own.kill()
descendants.end_all()
"""


def test_a_stop_that_has_to_kill_workers_leaves_nothing_of_what_they_started(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60.0,
    )
    assert (done.stdout, done.returncode) == ("12 [] {} 2 True\n", 0), done.stderr


ENDING = """
import subprocess, sys, time
from app import descendants
from app.workers.orphans import Orphans

# Their threads end one by one, and the first of them gives the child away.
WORKER = '''
import os, threading, time
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
'''
orphans = Orphans()
deadline = time.monotonic() + 10.0
while time.monotonic() < deadline:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"ready\\n"
    orphans.look({worker.pid})
    (child,) = descendants.children_of(worker.pid)
    worker.kill()
    while child not in descendants.own_children():
        orphans.look({worker.pid})
    left = orphans.look({worker.pid})
    assert left, "it is taken for the master's own"
    worker.wait()
    worker.stdout.close()
    descendants.end_all()
print("ended")
"""


@pytest.mark.soak
def test_what_a_worker_leaves_at_its_very_end_is_not_taken_for_the_masters_own():
    done = subprocess.run(
        [sys.executable, "-c", ENDING], check=False, capture_output=True, text=True, timeout=60.0
    )
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


FOUND = """
import os, time
from app import descendants
from app.workers import children

descendants.adopter()()
pid = os.fork()
if pid == 0:
    os.setsid()
    os.fork()  # both end: one of them is nobody's then
    os._exit(0)
deadline = time.monotonic() + 10.0
while len([p for p in map(descendants.look_up, descendants.own_children()) if p.ended]) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)
foundlings = children.Foundlings()
foundlings.look()
print(descendants.own_children() == [pid])
children.ASKED_FOR_SECONDS = 0.0
time.sleep(0.01)
foundlings.look()
print(descendants.own_children())
"""


def test_a_process_that_was_given_to_a_worker_leaves_the_table_and_a_plugins_own_waits():
    done = subprocess.run(
        [sys.executable, "-c", FOUND], check=False, capture_output=True, text=True, timeout=60.0
    )
    assert done.stdout == "True\n[]\n", done.stderr


class Session:
    """Stands for a connection of psycopg2's: a descriptor, or none any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def fileno(self) -> int:
        if self.descriptor < 0:
            raise psycopg2.InterfaceError("connection already closed")
        return self.descriptor


def test_a_childs_sessions_lead_nowhere_and_the_servers_end_is_not_told():
    ours, theirs = socket.socketpair()
    inherited.note(Session(-1))
    session = inherited.note(Session(ours.fileno()))
    pid = os.fork()
    if pid == 0:
        inherited.let_go()
        os.write(session.fileno(), b"goodbye")  # as libpq would say it
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    ours.send(b"still there")
    assert theirs.recv(100) == b"still there"
    ours.close()
    theirs.close()


def test_a_pool_begins_anew_in_a_child_though_another_thread_holds_its_lock():
    pool = Database("postgresql:///nowhere?host=/nowhere")
    pool._lock.acquire()
    pool.let_go()
    assert pool.lent() == 0
    assert wait_until(lambda: pool._lock.acquire(blocking=False))
    pool.close()


def test_the_hook_is_none_of_another_worker_class():
    children._close_sockets(SimpleNamespace(sockets=[]))
