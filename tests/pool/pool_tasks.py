"""What the pool's tests run in workers: small, importable, without pytest, so that a worker is up quickly."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import weakref

from resilient_exec import task_context
from resilient_exec.wire.channel import WorkerChannel

# -- plain ones ----------------------------------------------------------------------------------------------------


def echo(*args, **kwargs):
    return args, kwargs


def same(value):
    return value


def double(value):
    return 2 * value


def pid(*_):
    return os.getpid()


def context():
    here = task_context()
    return here.key, here.attempt, here.previous_pids


def make_list(size):
    return [0] * size


# -- traces in files: one line for each execution ------------------------------------------------------------------


def note(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)
    return text


def wait_for(path, seconds=60):
    """Wait for a file: how a test lets a task go on."""
    deadline = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise AssertionError(f"{path} never came")
        time.sleep(0.005)


def meet(here, go, answer=None):
    """Say in ``here`` that the task runs, wait for ``go``."""
    note(here, os.getpid())
    wait_for(go)
    return answer


def meet_attempt(here, go):
    note(here, os.getpid())
    wait_for(go)
    return task_context().attempt, os.getpid()


# -- ends ----------------------------------------------------------------------------------------------------------


def kill_self(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(status):
    os._exit(status)


def segfault():
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


def hang(*_):
    while True:
        time.sleep(60)


def hang_in_c(*_):
    """Holds the GIL in C code, for ever as far as a test is concerned."""
    re.match(r"(a*)*b", "a" * 60)


def close_everything():
    os.closerange(3, 4096)


def raise_(error):
    raise error


def raise_type(cls, *args):
    raise cls(*args)


CRASHES = {
    "sigkill": (kill_self, (signal.SIGKILL,)),
    "sigterm": (kill_self, (signal.SIGTERM,)),
    "sigabrt": (kill_self, (signal.SIGABRT,)),
    "segfault": (segfault, ()),
    "exit_0": (leave, (0,)),
    "exit_1": (leave, (1,)),
    "descriptors": (close_everything, ()),
}


def die_until(attempt, how="sigkill"):
    """Die in each attempt before ``attempt``; then tell about oneself."""
    if task_context().attempt < attempt:
        fn, args = CRASHES[how]
        fn(*args)
    return context()


def hang_until(attempt):
    if task_context().attempt < attempt:
        hang()
    return task_context().attempt


def plan_by_attempt(plan):
    """Do what the plan says for this attempt: die, hang, raise, or return the number of the attempt."""
    attempt = task_context().attempt
    what = plan[attempt - 1] if attempt <= len(plan) else "return"
    if what == "die":
        kill_self()
    elif what == "hang":
        hang()
    elif what == "raise":
        raise ValueError(f"attempt {attempt}")
    return attempt


def leave_a_child(path):
    """Fork a child that outlives the attempt in a session of its own, and note its pid."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
    note(path, child)


def die_with_a_child(path):
    """First attempt: leave a child behind and die.  Second: say whether that child and that worker still live."""
    here = task_context()
    if here.attempt == 1:
        leave_a_child(path)
        kill_self()
    with open(path) as file:
        child = int(file.read())
    return [alive(number) for number in (child, *here.previous_pids)]


def alive(number):
    """Whether the process lives (a zombie does not)."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


# -- references -----------------------------------------------------------------------------------------------------


class Referred:
    """An object that can be referred to weakly, and that the worker remembers so."""

    def __init__(self, size=0):
        self.data = bytes(size)

    def method(self):
        return None


class OwnError(Exception):
    """A plain exception of the user's (which, unlike a built-in one, can be referred to weakly)."""


_seen = []


def remember(thing, *, fail=False, give_back=False):
    _seen.append(weakref.ref(thing))
    if fail:
        raise OwnError(thing)
    return thing if give_back else None


def remembered():
    """How many of the objects that earlier tasks were given are still there in the worker."""
    import gc

    gc.collect()
    return sum(ref() is not None for ref in _seen)


def make_referred(_=None):
    return Referred()


# -- initializers ---------------------------------------------------------------------------------------------------

_state = {"initialized": 0, "lock": None}


def initialize(path=None, lock=None):
    _state["initialized"] += 1
    _state["lock"] = lock
    if path is not None:
        note(path, os.getpid())


def initialized(*_):
    return _state["initialized"]


def use_lock():
    with _state["lock"]:
        return "held"


def fail_to_initialize(path, error):
    note(path, os.getpid())
    raise error


def exit_in_initializer(path):
    note(path, os.getpid())
    sys.exit(3)


def die_in_initializer(path):
    note(path, os.getpid())
    kill_self()


def hang_in_initializer(path):
    note(path, os.getpid())
    hang()


def fail_once(path):
    """Fails in the first worker that tries, and in no other."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    raise ValueError("the first one fails")


# -- children -------------------------------------------------------------------------------------------------------


def _child(queue, value):
    queue.put(value * 2)


def child_process(method, value):
    """Run a ``multiprocessing.Process`` inside the task; ``method=None``: the default start method."""
    ctx = multiprocessing.get_context(method) if method else multiprocessing
    queue = ctx.SimpleQueue()
    process = ctx.Process(target=_child, args=(queue, value))
    process.start()
    answer = queue.get()
    process.join()
    return answer, process.exitcode


def child_pool(value):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(double, (value,))


def nested_pool(value):
    from resilient_exec import ResilientPool

    with ResilientPool(1) as pool:
        return pool.submit(double, value).result()


def start_method():
    return multiprocessing.get_start_method(allow_none=True)


# -- for the many ---------------------------------------------------------------------------------------------------


def chaos(path, number, what, until):
    """One of the many of the chaos test: leaves its line, then does what the plan says until attempt ``until``."""
    attempt = task_context().attempt
    note(path, f"{number} {attempt}")
    if attempt < until:
        if what == "exit":
            os._exit(number % 3)
        if what == "kill":
            kill_self()
        if what == "hang":
            hang()
        if what == "raise":
            raise ValueError(number)
    return number


def plan_of_map(path, go, what):
    note(path, what)
    if what == "raise":
        raise ValueError("planned")
    if what == "wait":
        wait_for(go)
    return what


def sys_path():
    return list(sys.path)


def die_until_and_make(attempt, thing):
    if task_context().attempt < attempt:
        kill_self()
    return thing


def ignore_everything():
    """Deaf to every signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


def die_and_look(how):
    """Die twice; then say which of the earlier workers live."""
    here = task_context()
    if here.attempt < 3:
        fn, args = CRASHES[how]
        fn(*args)
    return [alive(number) for number in here.previous_pids]


def hang_with_a_child(path):
    """First attempt: leave a child and hang.  Second: say whether that child and that worker still live."""
    here = task_context()
    if here.attempt == 1:
        leave_a_child(path)
        hang()
    with open(path) as file:
        return [alive(number) for number in (int(file.read()), *here.previous_pids)]


def return_then_die(path, number):
    """A thread that ends the process when the result is on its way: the worker waits for what comes next."""
    note(path, number)
    main = threading.main_thread().ident

    def die():
        while sys._current_frames()[main].f_code is not WorkerChannel._read.__code__:
            time.sleep(0.001)
        os._exit(3)

    threading.Thread(target=die, daemon=True).start()
    return number


def wait_a_second():
    time.sleep(1)
    return "waited"


def call(fn, argument):
    return fn(argument)


def note_after_death(path, number):
    if task_context().attempt == 1:
        kill_self()
    note(path, number)


def leave_a_thread():
    threading.Thread(target=hang).start()
    return os.getpid()


def meet_deaf(here, go):
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    meet(here, go)


def fail_unless(path, ready):
    if not os.path.exists(ready):
        note(path, os.getpid())
        raise ValueError("not ready")


def first_and_sum(array, i):
    return i, float(array.sum())


def die_first(path, array):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(array.sum())
