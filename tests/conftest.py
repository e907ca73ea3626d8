"""Shared by all tests: the slow marker, and the check that every test leaves the process as it found it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from resilient_exec import ResilientPool
from resilient_exec.wire.register import Register, View, register_file

LINUX = os.path.isdir("/proc/self/fd")


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--repeat", type=int, default=1, metavar="N", help="run each selected test N times")


def pytest_configure(config):
    if getattr(config.option, "dist", "no") == "load":  # -n was given: who is done takes from who is not
        config.option.dist = "worksteal"
    # A shell's background job ignores SIGINT, and its children inherit that: no Ctrl-C would reach what is tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.pluginmanager.hasplugin("hypothesispytest"):
        import hypothesis

        # How long an example takes is a matter of the machine, and no test here is about that.
        hypothesis.settings.register_profile(
            "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
        )
        hypothesis.settings.load_profile("ours")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test has logged or printed may hold lone surrogates, and pytest-xdist sends reports as UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_generate_tests(metafunc):
    repeat = metafunc.config.getoption("--repeat")
    if repeat > 1:
        metafunc.fixturenames.append("_repetition")
        metafunc.parametrize("_repetition", range(repeat))


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))


def _descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the directory that is being listed
            continue
    return found


def _is_tracker(pid):
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _children():
    found = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
        except OSError:
            continue
    return {pid for pid in found if not _is_tracker(pid)}


def _standing():
    return set(threading.enumerate()), _children(), _descriptors()


def _left(before):
    threads, children, descriptors = _standing()
    more_threads = [t.name for t in threads - before[0] if t.is_alive()]
    more_descriptors = {fd: what for fd, what in descriptors.items() if before[2].get(fd) != what}
    return more_threads, children - before[1], more_descriptors


@pytest.fixture(autouse=True, scope="module")
def light_collections():
    """Collections look at what tests make, not at what was imported: with scml loaded each would take half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leak(request):
    """After each test: no thread, process or descriptor more than before (with a moment for what is just ending)."""
    if not LINUX or "core" in request.node.path.parts:
        yield
        return
    _start_trackers()
    before = _standing()
    yield
    deadline = time.monotonic() + 10
    while any(left := _left(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not any(left), f"left behind: threads {left[0]}, processes {left[1]}, descriptors {left[2]}"


def _start_trackers():
    """Both trackers run before the first measurement: they are exempt, and live as long as this process."""
    from multiprocessing import resource_tracker

    from loky.backend.resource_tracker import _resource_tracker

    resource_tracker.ensure_running()
    _resource_tracker.ensure_running()


@pytest.fixture
def make_pool():
    """Makes pools; they are killed when the test is over, if it has not ended them."""
    pools = []

    def make(*args, **kwargs):
        pool = ResilientPool(*args, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.shutdown(kill=True, cancel_futures=True)
    pools.clear()  # pytest keeps this frame, and with it whatever a pool was given


@pytest.fixture
def registers():
    """The two sides of a register: the worker's, and the parent's view."""
    fd = register_file()
    register, view = Register(fd), View(fd)
    os.close(fd)
    yield register, view
    view.close()
    for part in (register.numbers, register.times, register.notes.which, register.notes._page):
        part.release()
    register.page.close()
