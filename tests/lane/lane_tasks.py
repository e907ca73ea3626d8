"""What the workers of these tests run: nothing but the standard library, and what a worker has, is imported."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import time

from resilient_exec.worker.serving import serve


def double(x):
    return x * 2


def length(data):
    return len(data)


def pid():
    return os.getpid()


def note(path, number=None):
    """Write a number, this process's own by default, as one line."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{os.getpid() if number is None else number}\n".encode())
    os.close(fd)


# -- waiting and hanging ---------------------------------------------------------------------------------------------


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    return "waited"


def wait_for_note(path):
    """Wait until somebody has noted something there."""
    while not (os.path.exists(path) and os.path.getsize(path)):
        time.sleep(0.001)


def sleep_for_ever():
    while True:
        time.sleep(3600)


def spin_for_ever():
    while True:
        pass


def swallow_everything():
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


def burn_in_c_under_the_gil():
    re.match(r"(a+)+$", "a" * 60 + "b")


def ignore_sigterm_and_sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_for_ever()


def block_all_signals_and_spin(path):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    note(path)
    spin_for_ever()


def stop_itself():
    os.kill(os.getpid(), signal.SIGSTOP)
    sleep_for_ever()


def note_then(path, fn, *args):
    note(path)
    return fn(*args)


def spin_beside_a_sleeping_thread(path):
    threading.Thread(target=sleep_for_ever, daemon=True).start()
    note(path)
    while True:
        pass


def wait_then_exit(path, status):
    wait_for(path)
    os._exit(status)


def wait_then_give_bytes(path, size):
    wait_for(path)
    return bytes(size)


# -- dying -----------------------------------------------------------------------------------------------------------


def signal_itself(number):
    os.kill(os.getpid(), number)
    sleep_for_ever()


def exit_at_once(status):
    os._exit(status)


def call_sys_exit(status):
    sys.exit(status)


def raise_it(error):
    raise error


def read_address_zero():
    ctypes.string_at(0)


def burst_the_stack():
    """Recursion in C that Python's own limit does not stop in time: the C stack is made small first."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (128 * 1024, hard))
    sys.setrecursionlimit(10**9)
    _down(0, 0)


def _down(_, depth):
    return functools.reduce(_down, [depth + 1], 0)


def become_another_program():
    os.execv("/bin/sh", ["sh", "-c", "exit 7"])  # noqa: S606


def return_and_die():
    """The outcome is sent, then a thread left behind ends the process."""
    threading.Thread(target=_die_when_idle, daemon=True).start()
    return "done"


def _die_when_idle():
    time.sleep(0.05)
    os._exit(5)


# -- signals ---------------------------------------------------------------------------------------------------------


def replace_the_stacks_handler(path):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    note(path)
    sleep_for_ever()


def unset_the_stacks_handler(path):
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    note(path)
    sleep_for_ever()


def leave_an_alarm(seconds):
    """A limit of the task's own that it forgets to lift: it strikes when the task is over."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def outlast(seconds):
    time.sleep(seconds)
    return "outlasted"


def _too_late(*_):
    raise TimeoutError("the alarm of a task that is long over")


def leave_a_thread_that_interrupts(path):
    """A thread outlives its task, and raises KeyboardInterrupt in the main thread when ``path`` appears."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        wait_for(path)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()


def leave_a_thread_that_never_ends():
    threading.Thread(target=sleep_for_ever, daemon=False).start()


# -- initializers ----------------------------------------------------------------------------------------------------

_global = {}


def set_global(name, value):
    _global[name] = value


def get_global(name):
    return _global[name]


def lock_is_free(name):
    lock = _global[name]
    got = lock.acquire(block=False)
    if got:
        lock.release()
    return got


def fork_in_initializer():
    os.fork()


def put_in_global_queue(name, value):
    _global[name].put(value)


def succeed_from_the_third_time_on(path):
    note(path)
    with open(path) as file:
        if len(file.readlines()) < 3:
            raise RuntimeError("not yet")


def large_initializer(data):
    _global["size"] = len(data)


# -- looking around --------------------------------------------------------------------------------------------------


def modules():
    return sorted(sys.modules)


def random_state():
    return random.getstate()


def seed(number):
    random.seed(number)


def draw():
    return random.random()


def start_method():
    return multiprocessing.get_start_method()


def context_of_task():
    from resilient_exec.worker.context import task_context

    return task_context()


def parent_and_dispositions():
    return os.getppid(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


def recurse_then_wait(depth, path):
    return wait_for(path) if depth == 0 else recurse_then_wait(depth - 1, path)


def serve_without_a_channel(_seat):
    serve()
