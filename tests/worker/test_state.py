"""What a task leaves in its worker is compared with how that was: what fails the next ones is found, and mended."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from state_tasks import HARMLESS, POISON, TRACES, mask_everything, work

import resilient_exec
from resilient_exec import ResilientPool

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is looked at are Linux's limits, masks and signals"
)

# In a process of its own, as pytest's would not survive it.
ALONE = """
import os, sys
import state_tasks
from resilient_exec.worker.state import WorkerState

state = WorkerState.take()
assert state.compare(state_tasks.work) == ""
function = getattr(state_tasks, sys.argv[1])
function()
words = state.compare(function)
os.write(1, words.encode())
os._exit(0)
"""


def _left_by(name: str) -> str:
    paths = [str(Path(resilient_exec.__file__).parents[1]), str(Path(__file__).parent)]
    program = f"import sys; sys.path[:0] = {paths}\n{ALONE}"
    ended = subprocess.run([sys.executable, "-c", program, name], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("function", POISON)
def test_what_fails_others_is_found(function):
    words = _left_by(function.__name__)
    assert words
    assert "cannot be read" not in words


@pytest.mark.parametrize("function", HARMLESS)
def test_what_only_differs_is_left_alone(function):
    assert _left_by(function.__name__) == ""


# What the forkserver had is kept once, before the fork; what a process of it has besides is found at the table's end.
FORKED = """
import sys, json, colorsys
from resilient_exec.worker import state

del sys.modules["colorsys"]
state.note_modules()
{meanwhile}
taken = state.WorkerState.take()
sys.modules.clear()
words = taken.compare(None)
print(words, *(name in sys.modules for name in ("json", "colorsys", "json.decoder")), sep="; ")
"""


@pytest.mark.parametrize(
    ("meanwhile", "there"),
    [
        ("", (True, False, True)),
        ("import colorsys", (True, True, True)),
        ("del sys.modules['json']", (False, False, True)),
        ("del sys.modules['json']; import colorsys", (False, True, True)),
        ("sys.modules['json'] = sys.modules.pop('json')", (True, False, True)),
        ("del sys.modules[[*sys.modules][-1]]; import colorsys", (True, True, True)),
    ],
    ids=["nothing", "an import", "a removal", "both", "one is moved", "the last one goes"],
)
def test_modules_are_those_of_the_forkserver_and_what_has_changed_since(meanwhile, there):
    paths = [str(Path(resilient_exec.__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {paths}\n{FORKED.format(meanwhile=meanwhile)}"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.stdout.strip() == "; ".join(map(str, ("modules removed from sys.modules", *there))), ended.stderr


# -- in a pool ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(), ("json",)], ids=["started", "forked"])
def pool(request, make_pool):
    return make_pool(1, timeout=60, preload=request.param)


@pytest.mark.parametrize("function", [*POISON, *TRACES])
def test_the_tasks_behind_one_that_poisons_its_worker_succeed_in_another(pool, function):
    first = pool.submit(function)
    others = [pool.submit(work, number) for number in range(3)]
    assert [other.result() for other in others] == [0, 1, 2]
    assert [other.attempts for other in others] == [1, 1, 1]
    error = first.exception()
    if function in TRACES:
        assert error is None or isinstance(error, RuntimeError)
        return
    assert error is None
    pids = {event.detail["pid"] for other in others for event in other.story if event.kind == "begun"}
    assert len(pids) == 1
    assert first.story[2].detail["pid"] not in pids


def test_a_worker_is_kept_where_only_something_differs(pool):
    futures = [pool.submit(function) for function in HARMLESS]
    assert [future.exception() for future in futures] == [None] * len(HARMLESS)
    assert pool.submit(work, 7).result() == 7
    assert len({event.detail["pid"] for future in futures for event in future.story if event.kind == "begun"}) == 1


def test_the_event_of_a_replaced_worker_says_why(make_pool):
    told = []
    with ResilientPool(1, observers=[told.append]) as pool:
        pool.submit(mask_everything).result()
    (stopping,) = [event for event in told if event.kind == "lane_stopping"]
    assert "umask" in stopping.detail["why"]


def test_a_memory_limit_is_nothing_that_a_task_has_left(make_pool):
    pool = make_pool(1, memory_limit="1GiB")
    futures = [pool.submit(work, number) for number in range(3)]
    assert [future.result() for future in futures] == [0, 1, 2]
    assert len({event.detail["pid"] for future in futures for event in future.story if event.kind == "begun"}) == 1


def start_idle_threads(count):
    event = threading.Event()
    threads = [threading.Thread(target=event.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    finally:
        event.set()


def test_the_error_says_that_the_limit_behind_memory_limit_counts_the_stacks_of_threads(make_pool):
    pool = make_pool(1, memory_limit="200MiB", retry=1)
    future = pool.submit(start_idle_threads, 400)
    assert isinstance(future.exception(), RuntimeError)
    assert "counts the stack of each thread" in str(future.dossier)
    assert pool.options(memory_limit=None).submit(start_idle_threads, 400).exception() is None
