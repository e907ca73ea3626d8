"""Failed starts are counted by cause and time: one failure that all lanes see breaks no pool."""

from __future__ import annotations

import logging
import os
import resource
import sys
import time

import pool_tasks as tasks
import pytest
from pool_wait import wait_lines

from resilient_exec import PoolBroken

LANES = 4


def fails_while(path, error):
    """An initializer for which a service does not answer."""
    tasks.note(f"{path}.seen", os.getpid())
    if os.path.exists(path):
        raise error


@pytest.mark.parametrize("error", [ConnectionError("a blip"), RuntimeError("a blip"), MemoryError()])
def test_an_initializer_that_fails_for_a_moment_breaks_no_pool_however_many_lanes_see_it(make_pool, tmp_path, error):
    path = tmp_path / "blip"
    path.touch()
    pool = make_pool(LANES, initializer=fails_while, initargs=(str(path), error))
    futures = [pool.submit(tasks.same, number) for number in range(20)]
    wait_lines(f"{path}.seen", 2 * LANES)
    path.unlink()
    assert [future.result() for future in futures] == list(range(20))
    assert {future.attempts for future in futures} == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of descriptors")
def test_no_descriptor_for_a_moment_breaks_no_pool(make_pool):
    told = []
    pool = make_pool(LANES, observers=[told.append], max_tasks_per_worker=1)
    list(pool.map(tasks.same, range(LANES)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] <= most:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most + 3, hard))
    try:
        futures = [pool.submit(tasks.same, number) for number in range(20)]
        deadline = time.monotonic() + 60
        while not any(event.kind == "lane_failed" for event in told):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
    assert [future.result() for future in futures] == list(range(20))


def test_what_lasts_for_start_patience_breaks_the_pool(make_pool, tmp_path):
    path = tmp_path / "blip"
    path.touch()
    error = ConnectionError("the service is gone")
    pool = make_pool(2, initializer=fails_while, initargs=(str(path), error), start_patience=1)
    began = time.monotonic()
    with pytest.raises(PoolBroken, match="the service is gone"):
        pool.submit(tasks.same, 1).result()
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("error", [TypeError("a mistake"), ImportError("no module"), SystemExit(3)])
def test_what_can_never_work_is_not_waited_for(make_pool, tmp_path, error):
    path = tmp_path / "blip"
    path.touch()
    pool = make_pool(1, initializer=fails_while, initargs=(str(path), error), start_patience=10**6)
    with pytest.raises(PoolBroken, match=type(error).__name__):
        pool.submit(tasks.same, 1).result()
    assert len((tmp_path / "blip.seen").read_text().splitlines()) == 3


def exits(path, status):
    tasks.note(path, os.getpid())
    os._exit(status)


def never_returns(path):
    tasks.note(path, os.getpid())
    time.sleep(10**6)


@pytest.mark.parametrize("preload", [(), ("json",)])
@pytest.mark.parametrize("status", [0, 3])
def test_an_initializer_that_exits_is_not_waited_for(make_pool, tmp_path, status, preload):
    path = tmp_path / "seen"
    pool = make_pool(1, initializer=exits, initargs=(str(path), status), start_patience=10**6, preload=preload)
    with pytest.raises(PoolBroken, match=f"exit code {status}"):
        pool.submit(tasks.same, 1).result()
    assert len(path.read_text().splitlines()) == 3


def test_an_initializer_that_never_returns_is_not_waited_for(make_pool, tmp_path):
    path = tmp_path / "seen"
    pool = make_pool(1, initializer=never_returns, initargs=(str(path),), start_patience=10**6, start_timeout=2)
    with pytest.raises(PoolBroken, match="its initializer did not return"):
        pool.submit(tasks.same, 1).result()
    assert len(path.read_text().splitlines()) == 3


def slow_to_end(path):
    import atexit

    atexit.register(lambda: (time.sleep(1.5), tasks.note(path, "whole")))


@pytest.mark.parametrize("preload", [(), ("json",)])
def test_a_worker_has_stop_timeout_to_end_and_is_killed_with_a_warning(make_pool, tmp_path, caplog, preload):
    path = tmp_path / "upload"
    with caplog.at_level(logging.WARNING, "resilient_exec"):
        with make_pool(1, stop_timeout=60, preload=preload) as patient:
            patient.submit(slow_to_end, str(path)).result()
        assert path.read_text() == "whole\n"
        assert not caplog.records
        path.unlink()
        with make_pool(1, stop_timeout=0.2, preload=preload) as hasty:
            hasty.submit(slow_to_end, str(path)).result()
        assert not path.exists()
    assert "did not end within 0.2 s" in caplog.text
    assert "stop_timeout" in caplog.text


@pytest.mark.parametrize("name", ["start_patience", "stop_timeout"])
@pytest.mark.parametrize("value", [-1, None, "5", float("nan"), float("inf")])
def test_wrong_times_are_refused(make_pool, name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        make_pool(1, **{name: value})
