"""What is seen of a pool, a future, a view, a settled task in a debugger, a log, a notebook."""

from __future__ import annotations

import re

import pool_odd as odd
import pool_tasks as tasks
from pool_wait import until, wait_lines

from resilient_exec import Settled


def test_a_future_says_its_state(make_pool, tmp_path):
    pool = make_pool(1, retry=3)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    runs = pool.options(key="case 7").submit(tasks.meet, here, go, "answer")
    waits = pool.submit(tasks.same, 1)
    cancelled = pool.submit(tasks.same, 1)
    assert cancelled.cancel()
    assert repr(cancelled) == f"<ResilientFuture {cancelled.key} cancelled>"
    wait_lines(here, 1)
    until(lambda: re.fullmatch(r"<ResilientFuture 'case 7' running, attempt 1 of 3, \d+\.\d+ s>", repr(runs)))
    assert repr(waits) == f"<ResilientFuture {waits.key} queued>"
    tasks.note(go, "now")
    assert (runs.result(60), waits.result(60)) == ("answer", 1)
    assert re.fullmatch(r"<ResilientFuture 'case 7' returned, attempt 1 of 3, \d+\.\d+ s>", repr(runs))
    assert repr(cancelled) == f"<ResilientFuture {cancelled.key} cancelled>"


def test_a_future_that_failed_says_of_what(make_pool):
    pool = make_pool(1, retry=2)
    died, raised = pool.submit(tasks.kill_self), pool.submit(tasks.raise_, ValueError("mine"))
    unsent = pool.submit(tasks.same, odd.CannotBePickled())
    for future in (died, raised, unsent):
        future.exception(60)
    assert " its worker died, attempt 2 of 2, " in repr(died)
    assert " raised ValueError, attempt 1 of 2, " in repr(raised)
    assert repr(unsent) == f"<ResilientFuture {unsent.key} failed>"


def test_a_key_whose_repr_raises_breaks_no_repr(make_pool):
    pool = make_pool(1)
    future = pool.submit(tasks.same, 1)
    future.result(60)
    future.key = odd.RaisesInRepr()
    assert "whose repr raises" in repr(future)


def test_a_notebook_shows_the_state_and_the_dossier_with_no_markup_of_others(make_pool):
    pool = make_pool(1, retry=2)
    future = pool.options(key="<b>", label="<i>").submit(tasks.raise_, ValueError("<u>"))
    future.exception(60)
    shown = future._repr_html_()
    assert "ResilientFuture &#x27;&lt;b&gt;&#x27; raised ValueError" in shown
    assert "attempt 1: raised ValueError" in shown
    assert "&lt;u&gt;" in shown
    assert set(re.findall(r"<[^/>]+>", shown)) <= {"<div>", "<code>", "<details>", "<summary>", "<pre>"}


def test_a_pool_and_its_views_say_what_goes_on(make_pool, tmp_path):
    pool = make_pool(2, retry=1)
    assert repr(pool) == "<ResilientPool 2 workers, 0 pending, 0 running>"
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    running = [pool.submit(tasks.meet, here, go) for _ in range(2)]
    wait_lines(here, 2)
    waiting = [pool.submit(tasks.same, number) for number in range(3)]
    until(lambda: repr(pool) == "<ResilientPool 2 workers, 3 pending, 2 running>", why=repr(pool))
    view = pool.options(timeout=60, key="case 7").options(priority=2)
    assert re.fullmatch(r"<PoolView timeout=60.0, retry=.*key='case 7', priority=2 of <ResilientPool .*>>", repr(view))
    tasks.note(go, "now")
    for future in running + waiting:
        future.result(60)
    pool.submit(tasks.kill_self).exception(60)
    pool.shutdown()
    assert repr(pool) == "<ResilientPool 2 workers, 0 pending, 0 running, 5 done, 1 failed, ended>"


def test_a_snapshot_prints_as_a_line_of_counts_and_a_line_for_each_lane(make_pool, tmp_path):
    pool = make_pool(2)
    go, here = str(tmp_path / "go"), str(tmp_path / "here")
    future = pool.options(key="case 7").submit(tasks.meet, here, go)
    (pid,) = wait_lines(here, 1)
    text = until(lambda: "attempt 1" in (text := str(pool.snapshot())) and text)
    counts, lane = text.splitlines()
    assert counts == "0 pending, 1 running"
    pattern = rf"lane 0 busy: worker {pid}, task 'case 7', attempt 1, \d+\.\d+ s, \d+ MiB, \d+\.\d+ s of CPU"
    assert re.fullmatch(pattern, lane)
    tasks.note(go, "now")
    future.result(60)


def test_a_settled_task_says_how_it_ended(make_pool):
    pool = make_pool(1, retry=1)
    done, raised, died = (
        next(iter(pool.settled(fn, [argument])))
        for fn, argument in [(tasks.same, 42), (tasks.raise_, ValueError("mine\nmore")), (tasks.kill_self, 9)]
    )
    assert re.fullmatch(r"<Settled 0 0 returned 42, 1 attempt, \d+\.\d+ s>", repr(done))
    assert re.fullmatch(r"<Settled 0 1 failed: ValueError: mine, 1 attempt, \d+\.\d+ s>", repr(raised))
    assert re.fullmatch(r"<Settled 0 2 failed: WorkerDied: task 2 .*, 1 attempt, \d+\.\d+ s>", repr(died))


def test_a_settled_task_with_a_large_or_odd_value_has_a_short_repr():
    assert len(repr(Settled(0, "k", True, list(range(10**6)), None, 1, 0.5))) < 100
    assert "RaisesInRepr" in repr(Settled(0, "k", True, odd.RaisesInRepr(), None, 1, 0.5))
    assert len(repr(Settled(0, "k", False, None, ValueError("x" * 10**6), 2, 0.5))) < 300
