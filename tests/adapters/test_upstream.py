"""What we found in other people's packages, each as a test that fails when they mend it (``docs/upstream.md``).

Only stock code runs here: our adapter is taken out.  A test that fails says which of our workarounds may go, once
the last version without the remedy is no longer supported.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent import futures

import negmas_negotiators as n
import negmas_tournaments as t
import pytest
import upstream_stage as stage
from negmas.tournaments import tournaments
from negmas.tournaments.neg.simple import cartesian
from scml.oneshot.adapter import OneShotSCML2020Adapter
from scml.oneshot.sysagents import DefaultOneShotAdapter
from scml.scml2020 import DoNothingAgent
from scml.std.agents import GreedyStdAgent, RandomStdAgent
from scml.utils import anac2024_oneshot, anac2024_std

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.worlds import plan

NEGMAS, SCML = stage.version("negmas"), stage.version("scml")
EVER = (10**6,)


@pytest.fixture(autouse=True)
def stock():
    adapter.uninstall()


def found(is_there, what, *, workaround, package=NEGMAS, until=EVER):
    """Assert that a finding is there in versions before ``until``, and gone since."""
    said = f"negmas {NEGMAS}, scml {SCML}: {what}"
    if package < until:
        assert is_there, f"{said}: this is mended. With the last version that has it, this of ours may go: {workaround}"
    else:
        assert not is_there, f"{said}: this is back, and docs/upstream.md calls it mended since {until}"


def run(folder, parallelism="serial", generator=stage.called, **kwargs):
    """Stock ``run_tournament``, saying nothing."""
    settings = {"score_calculator": stage.no_score, "print_exceptions": False, **kwargs}
    tournaments.run_tournament(folder, world_generator=generator, parallelism=parallelism, **settings)


# -- resuming


def test_a_finished_world_set_is_looked_up_by_another_name_than_it_was_noted_under(tmp_path, monkeypatch):
    """``run_ids`` holds ``_run_id(...)``, and ``_hash(...)`` is looked up in it."""
    done, _ = stage.plan(tmp_path, "done", "open")
    stage.finish(done)
    started, told = [], []
    monkeypatch.setattr(
        tournaments,
        "_run_worlds",
        lambda worlds_params, **_: started.append(t.name_of(worlds_params)) or ("id", [], None, None, None, None),
    )
    run(tmp_path, tournament_progress_callback=lambda *call: told.append(call))

    assert "open.00" in started
    found(
        "done.00" in started and len(told) == 2,
        "on resume a finished world set is run (its results are found there, and the callback is called) again",
        workaround="worlds._was_scored, which looks for results itself",
    )


def is_refused(world_set):
    """Whether negmas refuses to run it, in silence."""
    with contextlib.suppress(stage.Called):
        return stage.run_one(world_set, stage.called)[2] is None
    return False


def test_the_mark_of_a_killed_worker_keeps_a_world_set_from_ever_running_again(tmp_path):
    (world_set,) = stage.plan(tmp_path, "w")
    worker = multiprocessing.get_context("fork").Process(target=stage.run_one, args=(world_set, stage.killed))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -9

    found(
        is_refused(world_set),
        "a world set whose worker was killed is refused in silence ever after (score None), for its mark in _running",
        workaround="markers.clear_markers",
    )


def test_the_mark_of_a_world_that_raised_stays_too(tmp_path):
    (world_set,) = stage.plan(tmp_path, "w")
    with pytest.raises(stage.Called):
        stage.run_one(world_set, stage.called)

    found(
        is_refused(world_set),
        "a world set that has raised once is refused in silence ever after, in the same process",
        workaround="markers.clear_own_marker",
    )


def test_max_attempts_counts_attempts_where_none_are_written(tmp_path):
    (world_set,) = stage.plan(tmp_path, "w")
    running = tmp_path / "w" / "attempts" / "_running"
    for _ in range(2):
        with contextlib.suppress(stage.Called):
            stage.run_one(world_set, stage.called)
        for mark in running.glob("run*"):
            mark.unlink()
    assert len(list((tmp_path / "w" / "attempts").glob("att_*"))) == 2

    started = False
    try:
        stage.run_one(world_set, stage.called, max_attempts=1)
    except stage.Called:
        started = True
    found(started, "max_attempts=1 lets a third attempt start", workaround="plan.WorldSet.attempts_left")


def test_override_ran_worlds_is_never_looked_at(stock_tournament):
    """Nobody reads the argument: a world set with results is not run again."""
    folder, scored = stock_tournament
    finished = next(s for s in t.assigned(folder) if t.name_of(s) in scored)

    skipped = False
    with contextlib.suppress(stage.Called):
        skipped = stage.run_one(finished, stage.called, override_ran_worlds=True)[2] is not None
    found(skipped, "override_ran_worlds=True has no effect", workaround="installation._run_tournament")


@pytest.fixture(scope="session")
def stock_tournament(tmp_path_factory):
    """Two worlds, run by stock negmas, one after the other; the folder and the names of the scored."""
    adapter.uninstall()
    folder = t.make(tmp_path_factory.mktemp("stock") / "t", (t.Healthy, t.Thrifty))
    t.run_tournament(
        folder,
        world_generator=t.anac2024_oneshot_world_generator,
        score_calculator=t.balance_calculator_oneshot,
        parallelism="serial",
    )
    scored = set(t.scores(folder))
    assert len(scored) == 2
    adapter.install()
    return folder, scored


def test_the_generator_that_scml_stores_lacks_its_year(stock_tournament):
    """``run_tournament(folder)`` finds ``anac_oneshot_world_generator``, not the ``partial(..., year=2024)`` of it."""
    folder, _ = stock_tournament
    name = json.loads((folder / "params.json").read_text())["world_generator_name"]
    generator = tournaments.import_by_name(name)

    lacks_year = False
    try:
        generator(**t.assigned(folder)[0][0])
    except TypeError as error:
        lacks_year = "'year'" in str(error)
    except Exception:
        lacks_year = False  # the configuration holds more than a generator takes; its name is what matters
    found(
        lacks_year,
        "the world generator's name in params.json leads to a function that misses its year: resuming loses all worlds",
        workaround="what gives world_generator= in cli.scml.tournament._resume",
        package=SCML,
        until=(0, 8),
    )


# -- running


def test_a_value_of_parallelism_that_nobody_knows_runs_nothing_and_says_nothing(tmp_path):
    stage.plan(tmp_path / "t", "w")
    run(tmp_path / "t", "no such thing")
    unnoticed = not (tmp_path / "t" / "w").exists()
    empty = False
    with contextlib.suppress(ValueError):  # what we would have it raise
        results = anac2024_oneshot(
            [t.Healthy, t.Thrifty], tournament_path=tmp_path, parallelism="no such thing", **t.SMALL
        )
        empty = "score" not in results.total_scores  # so that asking for it is a KeyError: 'score'
    found(
        unnoticed and empty,
        "an unknown parallelism= falls through every branch: no world is run, and the results are empty",
        workaround="the wrapper of run_tournament in installation (with a registry of backends, all of it)",
    )


def test_a_keyboard_interrupt_in_a_worker_ends_the_whole_tournament(tmp_path):
    stage.plan(tmp_path, "w")
    ended = False
    try:
        run(tmp_path, "parallel:0.01", stage.interrupted)
    except KeyboardInterrupt:
        ended = True
    found(
        ended,
        "an agent's KeyboardInterrupt in a worker is raised in the parent and ends the tournament",
        workaround="nothing: our pool settles such a task like any other that raises",
    )


class _Executor:
    """Takes tasks, runs none."""

    def __init__(self, **_):
        self.submitted = []

    def submit(self, *args, **kwargs):
        self.submitted.append((args, kwargs))
        return futures.Future()

    def shutdown(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_set_of_worlds_has_the_limit_of_one_world(tmp_path):
    (one,) = stage.plan(tmp_path, "w", time_limit=60)
    sets = [[*one, *one, *one]]
    if hasattr(tournaments, "_world_timeout"):
        limit = tournaments._world_timeout(sets)
    else:
        _, limit = tournaments._submit_all(_Executor(), sets, set(), None, None, None, False, None, False, 1)
    found(
        limit == pytest.approx(60 * 1.05),
        "three worlds that run one after the other must end within the time limit of one",
        workaround="plan.world_timeout (negmas' own would do)",
    )
    assert plan.world_timeout(sets[0]) == pytest.approx(3 * 60 * 1.05)


def test_a_time_limit_is_asked_for_when_the_world_has_ended(tmp_path, monkeypatch):
    """``as_completed`` gives futures that are done, and ``future.result(timeout=...)`` of these never waits."""
    stage.plan(tmp_path, "w")
    waits = []
    monkeypatch.setattr(
        tournaments,
        "_get_executor",
        lambda *_, **__: (_Executor(), lambda fs, timeout=None: waits.append(timeout) or iter(())),
    )
    with contextlib.suppress(stage.Called):  # newer ones have no executor here, and a process of their own
        run(tmp_path, "parallel:0.01", total_timeout=30)
    found(
        waits == [None],
        "neither the worlds' limit nor total_timeout is looked at while no result arrives",
        workaround="nothing: our pool and worlds._steps hold both limits themselves",
        until=(0, 15, 7),
    )


def test_tasks_that_cannot_be_pickled_run_in_the_parent():
    """For world tournaments, too, which give nobody the choice: an agent that exits takes the tournament along."""
    parallel = pytest.importorskip("negmas.helpers.parallel", reason="older versions fail such a task")
    if not hasattr(parallel, "run_isolated_tasks"):
        pytest.skip("older versions fail such a task")
    lock, pids = threading.Lock(), []
    with pytest.warns(UserWarning, match="Cannot serialize"):
        parallel.run_isolated_tasks(
            [(None, lambda: (lock.locked(), os.getpid()), (), {})],
            max_workers=1,
            on_result=lambda _, result, *__: pids.append(result[1]),
        )
    found(
        pids == [os.getpid()],
        "a task that cannot be pickled runs unprotected in the parent unless the caller forbids it",
        workaround="nothing: travel.pack refuses such a tournament before its first world",
    )


# -- negotiation tournaments


def test_the_handler_of_timeouts_calls_failed_run_record_without_what_it_needs(monkeypatch):
    class Late(futures.Future):
        def result(self, timeout=None):
            raise TimeoutError

    class Executor(_Executor):
        def submit(self, *_, **__):
            return Late()

    if not hasattr(cartesian, "ProcessPoolExecutor"):
        pytest.skip("newer versions have another pool, which makes such records")
    monkeypatch.setattr(cartesian, "ProcessPoolExecutor", Executor)
    monkeypatch.setattr(cartesian, "as_completed", list)
    error = None
    try:
        n.tournament(n_scenarios=1)
    except TypeError as raised:
        error = str(raised)
    found(
        error is not None and error.startswith("failed_run_record() "),
        "a negotiation that times out ends the tournament with a TypeError",
        workaround="negotiations.NegotiationPool.record, which gives what is needed",
    )


@pytest.mark.skipif(not hasattr(cartesian, "continue_cartesian_tournament"), reason="older versions go on with nothing")
@pytest.mark.parametrize("by", ["continue_cartesian_tournament", "path_exists"])
def test_what_a_half_done_negotiation_tournament_has_done_is_done_again_and_counted_twice(by, tmp_path):
    """A negotiation's id is a hash over random ids of its utility functions, among others."""
    begun = []

    def interrupt(_):
        begun.append(1)
        if len(begun) > 7:
            raise KeyboardInterrupt

    here = {"n_scenarios": 1, "njobs": -1, "path": tmp_path / "t", "storage_optimization": "speed"}
    with pytest.raises(KeyboardInterrupt):
        n.tournament(before_start_callback=interrupt, **here)
    if by == "path_exists":
        records = n.tournament(path_exists="continue", **here).details.to_dict("records")
    else:
        results = cartesian.continue_cartesian_tournament(tmp_path / "t", verbosity=0, njobs=-1)
        records = results.details.to_dict("records")
        kept = len(list((tmp_path / "t" / "scenarios" / "scenario0").glob("*_u0?.yml")))
        found(kept == 4, "of two utility functions there are four afterwards", workaround="nothing")
    assert len({(record["scenario"], str(record["partners"]), record["rep"]) for record in records}) == 18
    found(
        len(records) == 18 + 7,
        "a half-done negotiation tournament that goes on does all negotiations again, and counts those done twice",
        workaround="checks.check_begun",
    )


# -- scml


def test_std_worlds_of_fewer_steps_than_products_cannot_be_made(tmp_path):
    with pytest.raises(ValueError) as error:
        anac2024_std(
            (GreedyStdAgent, RandomStdAgent), n_configs=1, n_steps=2, tournament_path=tmp_path, configs_only=True
        )
    found(
        "zero-size array" in str(error.value),
        "the catalog price of a product is the largest of none where there are fewer steps than products",
        workaround="nothing",
        package=SCML,
    )


def test_agents_of_oneshot_and_std_worlds_are_not_told_that_a_contract_is_executed():
    executed = []

    class Told(GreedyStdAgent):
        def on_contract_executed(self, contract):
            executed.append(contract)

    DefaultOneShotAdapter(obj=Told(), name="told").on_contract_executed("a contract")
    found(
        not executed,
        "the adapter of one-shot and std worlds has an empty on_contract_executed, and hands it on to no agent",
        workaround="nothing",
        package=SCML,
    )


def test_an_agent_in_scml_s_older_adapter_is_told_that_an_accepted_request_is_rejected():
    told = []

    class Told(DoNothingAgent):
        def on_neg_request_accepted(self, req_id, mechanism):
            told.append("accepted")

        def on_neg_request_rejected(self, req_id, by):
            told.append("rejected")

    OneShotSCML2020Adapter(obj=Told(), name="told").on_neg_request_accepted("a request", None)
    found(
        told == ["rejected"],
        "OneShotSCML2020Adapter.on_neg_request_accepted calls on_neg_request_rejected",
        workaround="nothing",
        package=SCML,
    )


# -- other packages


@pytest.mark.slow
def test_the_standard_library_s_pool_stops_when_its_workers_reach_their_limit(pytestconfig):
    """CPython gh-115634."""
    folder = str(pytestconfig.rootpath / "benchmarks")
    probe = [sys.executable, "-c", "from _environments import PROBE; print(PROBE)"]
    source = subprocess.run(probe, cwd=folder, capture_output=True, text=True, check=True).stdout
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict == "affected", (
        f"Python {sys.version.split()[0]} is {verdict}: gh-115634 is mended in it, and benchmarks/reproduce_deadlock.py"
        " has no hang to show there. Nothing of ours rests on it"
    )


def test_a_ctrl_c_in_the_enter_of_a_condition_keeps_its_lock():
    """At the place where the interpreter runs handlers of signals: behind the call of the C function that took it."""

    def interrupt(frame, event, argument):
        if event == "c_return" and frame.f_code is threading.Condition.__enter__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    future, told = futures.Future(), False
    sys.setprofile(interrupt)
    try:
        future.done()
    except KeyboardInterrupt:
        told = True
    finally:
        sys.setprofile(None)
    kept = future._condition._is_owned()
    if kept:
        future._condition.release()
    assert told, "a Condition is entered without a place for a handler: latch.Monitor may go"
    assert kept, "a Condition gives its lock back when it is interrupted there: latch.Monitor may go"


def test_a_ctrl_c_while_the_locks_of_futures_are_taken_keeps_them():
    def interrupt(frame, event, argument):
        if event == "c_return" and frame.f_code is futures._base._AcquireFutures.__enter__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    future = futures.Future()
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            futures.wait([future], 0)
    finally:
        sys.setprofile(None)
    kept = future._condition._is_owned()
    if kept:
        future._condition.release()
    assert kept, "wait() gives back what it has taken: the reservations of latch.Monitor may go"


def test_loky_registers_its_exit_hook_again_at_each_start(monkeypatch):
    """Its guard keeps what ``threading._register_atexit`` returns, which is ``None``."""
    from loky import process_executor

    registered = []
    monkeypatch.setattr(threading, "_register_atexit", lambda *hook: registered.append(hook))
    monkeypatch.setattr(process_executor, "process_pool_executor_at_exit", None)
    with process_executor.ProcessPoolExecutor(1) as executor:
        executor.submit(int).result(60)
    assert process_executor.process_pool_executor_at_exit is None, (
        "loky's guard holds now: docs/upstream.md need not tell of it"
    )
    assert registered
