"""What the tests of limits run in workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

from pool_tasks import kill_self, note, wait_for

from resilient_exec import SoftTimeout, task_context

PAGE = 4096
_leaked = []


def meet(here, go):
    note(here, os.getpid())
    wait_for(go)
    return os.getpid()


def _touched(size):
    """So many bytes that are really held: each page is written to."""
    data = bytearray(size)
    data[::PAGE] = b"x" * len(range(0, size, PAGE))
    return data


def take_memory(rate):
    """Take memory at ``rate`` bytes a second, without end, and hold it."""
    held, piece = [], 16 << 20
    began = time.monotonic()
    while True:
        held.append(_touched(piece))
        ahead = len(held) * piece / rate - (time.monotonic() - began)
        time.sleep(max(0, ahead))


def take_memory_until(attempt, rate, path):
    note(path, os.getpid())
    if task_context().attempt < attempt:
        take_memory(rate)
    return task_context().attempt


def _fork(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def _wait_all(pids):
    return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in pids)


def share_with_children(size, count):
    data = _touched(size)
    done = _wait_all([_fork(lambda: time.sleep(1.2)) for _ in range(count)])
    return done if data else 0


def children_take(size, count):
    return _wait_all([_fork(lambda: (_touched(size), time.sleep(60))) for _ in range(count)])


def allocate(size):
    return len(bytearray(size))


def data_limit():
    return resource.getrlimit(resource.RLIMIT_DATA)


def hold_then_die(size):
    data = _touched(size)
    time.sleep(1.2)
    kill_self(signal.SIGKILL if data else 0)


def leave_child_that_takes(size, path):
    """Return at once; a child takes the memory when the next task has begun."""
    if os.fork() == 0:
        wait_for(path)
        held = _touched(size)
        time.sleep(60)
        os._exit(len(held) == 0)


def leave_child_whose_child_takes(size, path):
    """Return at once; a child of the child takes the memory when the next task has begun."""
    if os.fork() == 0:
        wait_for(path)
        if os.fork() == 0:
            held = _touched(size)
            time.sleep(60)
            os._exit(len(held) == 0)
        time.sleep(60)
        os._exit(0)


def begin_and_wait(path, seconds):
    note(path, os.getpid())
    time.sleep(seconds)
    return task_context().attempt


def take(size):
    data = _touched(size)
    time.sleep(0.7)
    return task_context().attempt if data else 0


def leak_a_little_then_take(size):
    """Over its limit by a little: by what it takes itself, and not by what is left of the one before."""
    held = [_touched(16 << 20)]
    while sum(map(len, held)) < size:
        held.append(_touched(4 << 20))
        time.sleep(0.01)
    time.sleep(60)


def leak(size):
    _leaked.append(_touched(size))
    return os.getpid()


def run_alone(path):
    """Whether no other attempt runs: each holds the file by its name."""
    mine = f"{path}.{os.getpid()}.{task_context().key}"
    open(mine, "w").close()
    time.sleep(0.1)
    folder, name = os.path.split(path)
    others = [one for one in os.listdir(folder) if one.startswith(f"{name}.") and os.path.join(folder, one) != mine]
    os.remove(mine)
    return not others


# -- time ------------------------------------------------------------------------------------------------------------


def tidy_up():
    try:
        time.sleep(60)
    except SoftTimeout as told:
        return str(told), task_context().time_left()


def _arrive_late(seconds):
    time.sleep(seconds)
    return 60


class SlowToArrive:
    def __reduce__(self):
        return _arrive_late, (1.0,)


def take_handlers_away():
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, signal.SIG_DFL)


def block_all_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))


def unset_stacks_signal_and_wait(here):
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    note(here, os.getpid())
    wait_quietly()


def deep_inside():
    time.sleep(60)


def sleep_deep_inside():
    deep_inside()


def swallow_everything():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def sleep_for(seconds):
    time.sleep(seconds)
    return seconds


def forget_handlers():
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(60)


def raise_soft_timeout():
    raise SoftTimeout("mine")


def time_left():
    return task_context().time_left()


def use_scratch(path, how):
    folder = task_context().scratch_dir
    note(path, folder)
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("text")
    assert task_context().scratch_dir == folder
    if how == "raise":
        raise ValueError(folder)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        kill_self()
    if how == "hang":
        time.sleep(60)
    if how == "write-protect":
        (folder / "deep").chmod(stat.S_IRUSR | stat.S_IXUSR)
    return True


def use_scratch_without_a_folder(*args):
    """Where no folder for temporary files can be used."""
    import tempfile

    from resilient_exec.worker import context

    context._SHORT = ()
    context._place.known = tempfile.tempdir = "/nowhere/at/all"
    return use_scratch(*args)


def wait_quietly(*_):
    threading.Event().wait(60)


def note_then_wait(here):
    note(here, os.getpid())
    wait_quietly()


def compute_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def write_for(seconds):
    end = time.monotonic() + seconds
    with open(os.devnull, "wb", buffering=0) as file:
        while time.monotonic() < end:
            file.write(b"x")
            time.sleep(0.05)
    return seconds


# -- output ----------------------------------------------------------------------------------------------------------


def speak_then(how):
    print("by print")
    subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
    print("to stderr", file=sys.stderr)
    if how == "die":
        kill_self()
    if how == "raise":
        raise ValueError("spoken")
    return how


def die_silently():
    kill_self()


def flood_then_die(size):
    line = b"x" * 99 + b"\n"
    block = line * 1000
    for _ in range(size // len(block)):
        os.write(1, block)
    os.write(1, b"the last line\n")
    kill_self()


# -- locks -----------------------------------------------------------------------------------------------------------


class Agent:
    def __init__(self):
        self.lock = threading.Lock()
        self.inner = self.lock
        self.used = 0


def use_and_return(agent):
    with agent.lock:
        agent.used += 1
    return agent


def leave_zombies(count):
    """Start processes in the background, as a shell does, and wait for none."""
    os.system(f"for i in $(seq {count}); do true & done")  # noqa: S605
    return os.getpid()


def set_timers():
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0.3)


def complain_and_exit():
    print("LICENCE SERVER NOT FOUND", file=sys.stderr)
    os._exit(7)


def wait_in_pool_inside(path):
    from resilient_exec import ResilientPool

    with ResilientPool(1) as pool:
        pool.submit(note_then_wait, path).result()


def wait_in_task_group():
    async def wait():
        await asyncio.sleep(0)
        time.sleep(60)  # noqa: ASYNC251  it is to be interrupted there

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())

    asyncio.run(main())


def starve_in(cgroup):
    """Move into a memory cgroup that is too small, and take more than it has."""
    with open(os.path.join(cgroup, "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))
    _touched(512 << 20)
