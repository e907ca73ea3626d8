"""The path to what does not pickle leads there, is the shortest, and is found whatever stands in the way."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
import weakref

import cloudpickle
import lane_pickles as pickles
import lane_tasks as tasks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_nests import WAYS, Box, Frozen, follow

from resilient_exec.lane.initializer import check_initializer
from resilient_exec.model.errors import NotSendable
from resilient_exec.wire import culprit
from resilient_exec.wire.culprit import find, find_nesting, remedy

LOCK = threading.Lock()


class Getstate:
    def __init__(self, error):
        self.error = error

    def __getstate__(self):
        raise self.error


class Bottomless:
    def __getstate__(self):
        return self.__getstate__()


class Malformed:
    def __reduce__(self):
        return int, "not a tuple"


class Endless:
    """Each that is pickled refers to a new one."""

    def __reduce__(self):
        return Endless, (), {"another": Endless()}


class OddAttributes:
    def __init__(self):
        self.lock = LOCK

    @property
    def __dict__(self):
        raise SystemExit(5)


def a_generator():
    yield 1


CULPRITS = {
    "Lock": threading.Lock,
    "RLock": threading.RLock,
    "local": threading.local,
    "generator": a_generator,
    "frame": sys._getframe,
    "weak reference": lambda: weakref.ref(LOCK_OWNER),
    "raises": lambda: Getstate(ValueError("no")),
    "exits": lambda: Getstate(SystemExit(3)),
    "group": lambda: Getstate(BaseExceptionGroup("both", [ValueError()])),
    "too deep": lambda: Getstate(RecursionError("deep")),
    "bottomless": Bottomless,
    "malformed": Malformed,
    "a lock's method": lambda: threading.Lock().acquire.__self__,
}
LOCK_OWNER = Box(lock=threading.Lock())
NOISE = st.recursive(
    st.integers() | st.text(max_size=3) | st.builds(Box) | st.just(len) | st.just(sys) | st.builds(lambda: lambda: 1),
    lambda inner: st.lists(inner, max_size=3) | st.builds(Frozen, st.just(1), inner),
    max_leaves=5,
)


@st.composite
def nests(draw, innermost):
    """An object, nested somewhere in a root with much else in it, and some references back to the root."""
    inner = draw(innermost)
    nest = inner
    boxes = []
    for way in draw(st.lists(st.sampled_from(WAYS), max_size=6)):
        nest = way(nest)
        if draw(st.booleans()):
            boxes.append(Box(noise=draw(NOISE), nest=nest))
            nest = boxes[-1]
    for box in boxes:
        box.back = [nest]
    return nest, inner


@given(nests(st.sampled_from(list(CULPRITS.values())).map(lambda make: make())))
@settings(max_examples=200, deadline=None)
def test_the_path_leads_to_the_culprit(nest):
    root, planted = nest
    found = find(root, "root", cloudpickle.Pickler)
    assert found.value is planted
    if len(found.path) < culprit._LONGEST_PATH:
        assert any(part is planted for part in follow(found.path, root)), found.path


@given(nests(NOISE))
@settings(max_examples=100, deadline=None)
def test_nothing_is_blamed_where_all_of_it_pickles(nest):
    root, _ = nest
    assert cloudpickle.dumps(root)
    assert find(root, "root", cloudpickle.Pickler) is None


@pytest.mark.parametrize("way", range(len(WAYS)))
def test_each_way_of_holding_it_is_followed(way):
    lock = threading.Lock()
    root = WAYS[way](lock)
    found = find(root, "root", cloudpickle.Pickler)
    assert found.value is lock
    assert any(part is lock for part in follow(found.path, root)), found.path


def test_paths_read_as_the_user_writes_them():
    def closed_over():
        return held

    def giving(held):
        return lambda: held

    held = Box(lock=LOCK)
    cases = {
        "agent._logger._lock": Box(_logger=Box(_lock=LOCK)),
        "agent['db'].conn": {"db": Box(conn=LOCK)},
        "agent[3].lock": [1, 2, 3, Box(lock=LOCK)],
        "agent.__self__.lock": Box(lock=LOCK).method,
        "agent.f.args[1]": Box(f=pickles.PlainError(1, LOCK)),
        "(closure variable 'held' of agent).lock": closed_over,
        "closure variable 'held' of agent.call": Box(call=giving(LOCK)),
        "(an item of agent.all).lock": Box(all={Box(lock=LOCK)}),
    }
    assert {find(root, "agent", cloudpickle.Pickler).path: root for root in cases.values()} == cases


def test_a_root_whose_name_is_words_is_put_in_brackets():
    assert find(Box(lock=LOCK), "argument 1", cloudpickle.Pickler).path == "(argument 1).lock"
    assert find({LOCK}, "argument 1", cloudpickle.Pickler).path == "an item of argument 1"


def test_the_shortest_path_is_taken():
    far = Box(a=Box(b=Box(c=LOCK)))
    assert find(Box(far=far, list=[far, far.a], near=Box(x=LOCK)), "root", cloudpickle.Pickler).path == "root.near.x"


def test_a_very_long_path_is_cut_in_its_middle():
    root = LOCK
    for _ in range(200):
        root = Box(inner=root)
    path = find(root, "root", cloudpickle.Pickler).path
    assert len(path) < 260
    assert path.startswith("root.inner.inner")
    assert " ... " in path
    assert path.endswith(".inner.inner")


def test_cycles_end():
    root = Box(list=[], lock=None)
    root.list.append(root.list)
    root.me = {"root": root}
    root.me["lock"] = LOCK
    assert find(root, "root", cloudpickle.Pickler).path == "root.me['lock']"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: open("/dev/null", "w"), "not opened for reading"),  # noqa: SIM115
        (lambda: open("/dev/null", "rb"), "BufferedReader"),  # noqa: SIM115
        (socket.socket, "socket"),
        (lambda: sqlite3.connect(":memory:"), "sqlite3.Connection"),
    ],
    ids=["text file", "binary file", "socket", "sqlite"],
)
def test_what_is_open_is_found_and_is_to_be_opened_in_the_worker(make, says):
    held = make()
    try:
        root = Box(held=[held])
        found = find(root, "root", cloudpickle.Pickler)
    finally:
        held.close()
    assert found.path == "root.held[0]"
    assert says in str(found.error)
    assert remedy(found, root).endswith(
        "leave it out in __getstate__, or send its name or address, and open it in the worker"
    )


def test_what_cloudpickle_sends_is_passed_over():
    root = Box(module=sys, function=lambda: 1, text=io.StringIO("a"), method=Box().method, last=LOCK)
    assert find(root, "root", cloudpickle.Pickler).path == "root.last"


def test_the_pickler_that_refused_it_is_the_judge():
    root = Box(first=lambda: 1, last=LOCK)
    assert find(root, "root", pickle.Pickler).path == "root.first"


OUT = "; leave it out in __getstate__"


@pytest.mark.parametrize(
    ("value", "in_argument", "alone", "in_result", "result"),
    [
        (
            LOCK,
            f"{OUT}, make it in the worker, or use X",
            "; make it in the worker, or use X",
            f"{OUT}, or use X",
            "; use X",
        ),
        (threading.local(), f"{OUT}, or make it in the worker", "; make it in the worker", OUT, ""),
        (
            a_generator(),
            f"{OUT}, or {culprit._LIST}",
            f"; {culprit._LIST}",
            f"{OUT}, or {culprit._LIST}",
            f"; {culprit._LIST}",
        ),
        (Getstate(ValueError("no")), "", "", "", ""),
    ],
    ids=["lock", "other", "generator", "user's own error"],
)
def test_a_remedy_fits_what_was_found(value, in_argument, alone, in_result, result):
    root = Box(held=value)
    inner, outer = find(root, "root", cloudpickle.Pickler), find(value, "root", cloudpickle.Pickler)
    assert remedy(inner, root, for_locks="use X") == in_argument
    assert remedy(outer, value, for_locks="use X") == alone
    assert remedy(inner, root, for_locks="use X", returned=True) == in_result
    assert remedy(outer, value, for_locks="use X", returned=True) == result


def test_a_coroutine_is_to_be_run_where_it_is_made():
    async def answer():
        return 1

    coroutine = answer()
    try:
        found = find(coroutine, "the result", cloudpickle.Pickler)
        assert "by asyncio.run(...)" in remedy(found, coroutine, returned=True)
    finally:
        coroutine.close()


# -- what stands in the way ------------------------------------------------------------------------------------------


def test_a_ctrl_c_passes():
    with pytest.raises(KeyboardInterrupt):
        find(Box(held=pickles.CallsWhenPickled(tasks.raise_it, KeyboardInterrupt())), "root", cloudpickle.Pickler)


def test_a_property_that_stands_for_the_attributes_is_harmless():
    assert find(Box(odd=OddAttributes()), "root", cloudpickle.Pickler).value is LOCK


def test_a_graph_without_end_is_left(monkeypatch):
    monkeypatch.setattr(culprit, "_MOST_PARTS", 500)
    assert find(Endless(), "root", cloudpickle.Pickler) is None


def test_the_search_ends_when_its_time_is_over():
    assert find(Box(lock=LOCK), "root", cloudpickle.Pickler, seconds=0) is None
    assert find(Box(lock=LOCK), "root", cloudpickle.Pickler, seconds=60).path == "root.lock"


def test_it_does_not_recurse():
    root = Box(lock=LOCK)
    for _ in range(20_000):
        root = [root]
    assert find(root, "root", cloudpickle.Pickler, seconds=60).value is LOCK


def chain(length):
    root = None
    for _ in range(length):
        root = Box(next=[root])
    return root


def test_a_chain_that_is_too_long_is_shown_by_its_first_steps():
    root = chain(50_000)
    with pytest.raises((RecursionError, pickle.PicklingError)):
        cloudpickle.dumps(root)
    assert find_nesting(root, "root", cloudpickle.Pickler) == "root.next[0].next[0]..."


def test_a_chain_is_too_long_though_there_is_a_short_way_to_each_link():
    links = [chain(1) for _ in range(500)]
    for link, following in itertools.pairwise(links):
        link.next = following
    assert find_nesting(links, "root", cloudpickle.Pickler) == "root[0].next.next.next..."


def test_what_is_not_deep_is_no_nesting():
    assert find_nesting(chain(10), "root", cloudpickle.Pickler) == ""
    assert find_nesting([], "root", cloudpickle.Pickler) == ""


def test_an_error_of_a_parts_own_that_comes_first_is_no_nesting():
    assert find_nesting([Bottomless(), chain(1000)], "root", cloudpickle.Pickler) == ""


@pytest.mark.parametrize(
    ("initializer", "initargs", "text"),
    [
        (print, (1, Box(lock=LOCK)), "initargs[1], of type Box, cannot be sent to a worker: initargs[1].lock is a "),
        (
            Box(lock=LOCK).method,
            (),
            "initializer, of type method, cannot be sent to a worker: initializer.__self__.lock is a ",
        ),
        (
            print,
            (LOCK,),
            "initargs[0], of type lock, cannot be sent to a worker: TypeError: cannot pickle '_thread.lock'",
        ),
        (print, (Getstate(SystemExit(3)),), "initargs[0], of type Getstate, cannot be sent to a worker: SystemExit: 3"),
    ],
    ids=["argument", "initializer", "bare lock", "exit"],
)
def test_the_check_of_an_initializer_names_the_culprit(initializer, initargs, text):
    with pytest.raises(NotSendable) as caught:
        check_initializer(initializer, initargs)
    assert str(caught.value).startswith(text)
    assert "fresh_locks" not in str(caught.value)


def test_what_travels_only_at_the_start_of_a_worker_is_not_blamed():
    spawned = multiprocessing.get_context("spawn")
    with pytest.raises(NotSendable, match=r": initargs\[0\]\.last is a _thread.lock \("):
        check_initializer(print, (Box(event=spawned.Event(), last=LOCK),))


def test_where_everything_pickles_nothing_is_imported_for_the_search():
    code = (
        "import sys; from resilient_exec.wire.payload import pack_call, pack_value, pack_exception\n"
        "pack_call(print, (lambda: 1,), {}); pack_value([print]); pack_exception(ValueError(1))\n"
        "ours = {'resilient_exec.' + name for name in ('culprit', 'reduction', 'locks')}; "
        "sys.exit(bool(ours & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
