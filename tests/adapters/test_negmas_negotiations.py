"""Negotiation tournaments: the process pool under ``cartesian_tournament`` replaced by ours."""

from __future__ import annotations

import inspect
import json
import os
import random
import threading

import negmas_negotiators as n
import pytest
from negmas.sao import AspirationNegotiator, RandomNegotiator
from negmas.tournaments.neg.simple import cartesian

import resilient_exec.adapters.negmas as adapter

NEWER = hasattr(cartesian, "run_isolated_tasks")


@pytest.fixture(autouse=True)
def installed():
    adapter.install(negotiations=True)


def test_the_records_are_those_of_a_serial_run():
    """36 of 36, where stock negmas 0.11.3 stops at 20."""
    serial = n.records(n.tournament(njobs=-1))
    with adapter.options(max_workers=2):
        ours = n.tournament()

    assert len(ours.details) == 36
    assert n.records(ours) == serial
    assert (adapter.last_report().kind, adapter.last_report().scored) == ("negotiations", 36)


def test_a_serial_run_stays_in_this_process():
    seen = []

    class Noisy(AspirationNegotiator):
        def propose(self, *args, **kwargs):
            seen.append((os.getpid(), threading.get_ident()))
            return super().propose(*args, **kwargs)

    n.tournament((Noisy, AspirationNegotiator), n_scenarios=1, njobs=-1)

    assert set(seen) == {(os.getpid(), threading.get_ident())}


@pytest.mark.parametrize(
    ("sick", "timeout", "words"),
    [
        (n.Killer, 120, "SIGKILL"),
        pytest.param(n.Sleeper, 1, "timed out after 1 s", marks=pytest.mark.slow),
        pytest.param(n.Quitter, 120, "it raised KeyboardInterrupt", marks=pytest.mark.slow),
    ],
)
def test_a_negotiation_that_fails_becomes_negmas_own_record(sick, timeout, words, tmp_path, capfd):
    """One pair and its swap in one scenario."""
    path = tmp_path / "t"
    with (
        adapter.options(max_workers=2, timeout=timeout, retry=1),
        pytest.warns(adapter.ResilientWarning, match="2 of 2 negotiations have no score"),
    ):
        results = n.tournament(
            (AspirationNegotiator, sick), n_scenarios=1, self_play=False, rotate_ufuns=False, path=path
        )
    details = results.details.to_dict("records")
    report = adapter.last_report()
    err = capfd.readouterr().err

    assert len(details) == len(report.missing) == 2
    for record in details:
        assert record["agreement"] is None
        assert record["timedout"] or record["has_error"]
    for task in report.missing:
        assert any(sick.__name__ in name for name in task.competitors)
        assert words in f"{task.reason} {task.signal} {task.history}"
    told = [line for line in err.splitlines() if " negotiation, " in line or " negotiations, " in line]
    assert told
    for line in told:  # it is asked for an offer at the beginning, or after its answer
        assert line.startswith(f"  negmas_negotiators.{sick.__name__}: ")
        assert " in propose" in line or " in respond" in line
    health = {row.competitor.rpartition(".")[2]: row for row in report.health}
    assert (health[sick.__name__].spoiled, health[sick.__name__].worlds) == (2, 2)
    assert health["AspirationNegotiator"].spoiled == 0
    assert (path / "resilient" / "health.csv").exists()
    assert json.loads((path / "resilient" / "report.json").read_text())["counts"]["failed"] == 2


@pytest.mark.slow
def test_competitors_made_at_run_time_travel():
    class Local(AspirationNegotiator):
        """Not importable anywhere."""

    with adapter.options(max_workers=1):
        results = n.tournament((Local, AspirationNegotiator), n_scenarios=1)

    assert len(results.details) == 8
    assert not any(r["has_error"] for r in results.details.to_dict("records"))


@pytest.mark.skipif(not NEWER, reason="older versions hand their tasks to an executor")
@pytest.mark.slow
def test_tasks_that_cannot_be_pickled_are_left_to_negmas_under_their_own_numbers():
    """With seeds and callbacks as if nothing had happened to the others in between."""
    parallel = pytest.importorskip("negmas.helpers.parallel")
    lock = threading.Lock()
    calls = []
    tasks = [(i, (lambda i: i) if i != 1 else (lambda i: (lock.locked(), i)), (i,), {}) for i in range(3)]
    with adapter.options(max_workers=1), pytest.warns(UserWarning, match="Cannot serialize"):
        cartesian.run_isolated_tasks(tasks, max_workers=1, on_result=lambda *call: calls.append(call))
    assert sorted(calls) == [(0, 0, 0, 3), (1, (False, 1), 1, 3), (2, 2, 2, 3)]

    report = adapter.last_report()
    assert [task.status for task in report.tasks].count("left to negmas") == 1
    assert (report.scored, report.missing) == (2, ())

    if "allow_inline_fallback" in inspect.signature(parallel.run_isolated_tasks).parameters:
        failures = []
        how = {"on_error": lambda *call: failures.append(call[1:]), "allow_inline_fallback": False}
        with adapter.options(max_workers=1), pytest.warns(UserWarning, match="Cannot serialize"):
            cartesian.run_isolated_tasks(tasks, max_workers=1, **how)
        assert failures == [(1, 1, 3)]


@pytest.mark.skipif(not NEWER, reason="older versions have no total_timeout here")
@pytest.mark.slow
def test_total_timeout_ends_negotiations_that_hang():
    with adapter.options(max_workers=1), pytest.warns(adapter.ResilientWarning, match="3 of 3"):
        cartesian.run_isolated_tasks([(i, _hang, (), {}) for i in range(3)], max_workers=1, total_timeout=3)

    report = adapter.last_report()
    assert report.ended_by == "total_timeout"
    assert [task.reason for task in report.missing] == ["total_timeout was over"] * 3


def _hang():
    threading.Event().wait()


@pytest.mark.slow
def test_each_task_has_the_seed_that_negmas_derives_from_its_number(monkeypatch):
    rand = pytest.importorskip("negmas.helpers.rand")
    from negmas.helpers.parallel import run_serial_tasks

    monkeypatch.setattr(rand, "_seed", 42)
    tasks = [(i, _draw, (), {}) for i in range(4)]
    drawn, expected = {}, {}
    run_serial_tasks(tasks, on_result=lambda info, value, *_: expected.update({info: value}))
    with adapter.options(max_workers=2):
        cartesian.run_isolated_tasks(
            tasks, max_workers=2, on_result=lambda info, value, *_: drawn.update({info: value})
        )

    assert drawn == expected
    assert len(set(drawn.values())) == 4


def _draw():
    import random

    return random.random()


# -- scores that can be had again


@pytest.fixture
def hash_order(monkeypatch):
    """As if this process had been started with it."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def drawn_records(seed, njobs, **kwargs):
    """Of a tournament whose negotiators draw all that they say."""
    with adapter.options(seed=seed, max_workers=max(1, njobs)):
        results = n.tournament((n.Stumbler, RandomNegotiator), n_scenarios=1, njobs=njobs, **kwargs)
    return n.records(results)


def test_a_seeded_negotiation_has_the_same_scores_in_a_worker_and_here_in_any_order(hash_order):
    serial = drawn_records(7, -1, drawn=1)
    state = random.getstate()

    assert drawn_records(7, 2, drawn=2) == serial
    assert drawn_records(7, -1, drawn=1) == serial
    assert random.getstate() == state  # nothing but what cartesian_tournament itself draws
    assert drawn_records(8, -1) != serial
    assert len(set(serial)) == len(serial) == 8


@pytest.mark.slow
def test_a_seeded_negotiation_has_the_same_scores_when_its_worker_died(hash_order, monkeypatch, tmp_path):
    stone = tmp_path / "stone"
    stone.touch()
    once, thrice = drawn_records(7, -1), drawn_records(7, -1, n_repetitions=3)
    monkeypatch.setenv("STUMBLE", str(stone))

    assert drawn_records(7, 1) == once
    assert not stone.exists()
    assert [task.attempts for task in adapter.last_report().retried] == [2]
    assert drawn_records(7, 2, n_repetitions=3) == thrice
    assert len(set(thrice)) > len(once)  # each repetition draws its own


def test_negotiations_in_threads_cannot_be_seeded():
    if "executor" not in inspect.signature(cartesian.cartesian_tournament).parameters:
        pytest.skip("older versions have no threads")
    with pytest.raises(ValueError, match=r'seed=7 with executor="thread": .* use executor="process"'):
        drawn_records(7, 2, executor="thread")


def test_a_serial_seeded_tournament_says_once_how_to_get_the_workers_order_of_sets(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.warns(RuntimeWarning, match="PYTHONHASHSEED=7$") as told:
        drawn_records(7, -1)
    assert len([one for one in told if "PYTHONHASHSEED" in str(one.message)]) == 1


@pytest.mark.slow
@pytest.mark.skipif(not NEWER, reason="older versions run it in this process")
def test_a_serial_tournament_with_a_limit_of_time_has_one_worker():
    with adapter.options(max_workers=2):
        n.tournament(n_scenarios=1, njobs=-1, time_limit=60)
    assert adapter.last_report().workers == 1


# -- half-done tournaments


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(cartesian, "continue_cartesian_tournament"), reason="older versions do not go on")
@pytest.mark.parametrize("by", ["continue_cartesian_tournament", "path_exists"])
def test_a_half_done_tournament_is_refused_before_it_is_counted_twice(by, tmp_path):
    """See ``test_upstream.py`` for what stock does; one whose results are gone is run as a whole."""
    begun = []

    def interrupt(_):
        begun.append(1)
        if len(begun) > 3:
            raise KeyboardInterrupt

    def go_on():
        if by == "path_exists":
            return n.tournament(path_exists="continue", **half)
        return cartesian.continue_cartesian_tournament(tmp_path / "t", verbosity=0, njobs=1)

    half = {"competitors": n.HEALTHY[:2], "n_scenarios": 1, "path": tmp_path / "t", "storage_optimization": "speed"}
    with pytest.raises(KeyboardInterrupt):
        n.tournament(before_start_callback=interrupt, njobs=-1, **half)
    with adapter.options(max_workers=1):
        with pytest.raises(
            adapter.CheckFailed, match=r"results of 3 negotiations .* run them again, and count them twice"
        ):
            go_on()
        for path in (tmp_path / "t" / "results").iterdir():
            path.write_text(path.read_text()[:20])  # as a power cut leaves it
        assert len(go_on().details) == 8
