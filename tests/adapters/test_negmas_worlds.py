"""World tournaments on ``parallelism="resilient"``: real ones, small ones, with agents that misbehave."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import negmas_tournaments as t
import pytest
from negmas.helpers.inout import load
from negmas_agents import Healthy, HealthyStd, Saboteur, Thrifty, ThriftyStd
from scml.utils import anac2024_oneshot, anac2024_std

import resilient_exec.adapters.negmas as adapter
from resilient_exec import NotSendable, PoolBroken, ResilientPool
from resilient_exec.adapters.negmas import travel
from resilient_exec.adapters.negmas.worlds import limited_calls, markers
from resilient_exec.adapters.negmas.worlds import task as worldset
from resilient_exec.adapters.negmas.worlds.plan import competitors_of, world_timeout
from resilient_exec.adapters.worker_output import WorkerOutput


@pytest.mark.parametrize(
    ("league", "competitors"),
    [
        pytest.param(anac2024_std, (HealthyStd, ThriftyStd), id="std"),
        # Slow: all tests below run this league, though by run_tournament.
        pytest.param(anac2024_oneshot, (Healthy, Thrifty), id="oneshot", marks=pytest.mark.slow),
    ],
)
def test_a_tournament_ends_with_all_worlds_scored(tmp_path, league, competitors):
    calls = []
    (seen := tmp_path / "seen").mkdir()

    def look(_):  # in a worker
        from negmas.helpers.timeout import TimeoutCaller

        (seen / TimeoutCaller.run.__module__).touch()

    results = league(
        competitors,
        tournament_path=tmp_path / "tournament",
        parallelism="resilient",
        world_progress_callback=look,
        tournament_progress_callback=lambda score, i, n: calls.append((score is not None, i, n, threading.get_ident())),
        **t.SMALL,
    )

    types = {name.rpartition(".")[2] for name in results.total_scores["agent_type"]}
    report = adapter.last_report()
    assert types == {kind.__name__ for kind in competitors}
    assert (report.planned, report.scored, report.missing) == (2, 2, ())
    assert calls == [(True, i, 2, threading.get_ident()) for i in range(2)]
    assert json.loads((Path(report.folder) / "resilient" / "report.json").read_text()) == json.loads(
        json.dumps(report.to_dict())
    )
    for task in report.tasks:
        assert {name.rpartition(".")[2] for name in task.competitors} == types
    assert [path.name for path in seen.iterdir()] == [limited_calls.__name__]


@pytest.mark.parametrize(
    ("competitors", "configs", "worlds", "killed", "undisturbed"),
    [(2, 1, 2, 1, ()), pytest.param(3, 6, 36, 12, (1, 2), marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_scores_do_not_depend_on_who_runs_the_worlds(tmp_path, competitors, configs, worlds, killed, undisturbed):
    """Serial, one worker, two workers, and worlds that were killed once: the same scores, and the same files.

    In the quick form the two workers have two worlds, of which one is killed once and the other one is not.
    """
    out = tmp_path / "out.json"
    script = Path(__file__).with_name("script_same_scores.py")
    command = [sys.executable, script, tmp_path / "t", out, *map(str, (competitors, configs, killed, *undisturbed))]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}, check=True, capture_output=True)
    ways = json.loads(out.read_text())
    sabotaged = ways.pop("sabotaged")
    serial = ways.pop("serial")

    assert len(serial["scores"]) == worlds
    assert list(ways) == [*(f"{n} workers" for n in undisturbed), "killed once"]
    for way in ways.values():
        assert way["scores"] == serial["scores"]
        assert way["files"] == serial["files"]
        assert (way["markers"], way["folders"]) == ([], serial["folders"])
    assert ways["killed once"]["retried"] == [[world, 2, ["died: SIGKILL"]] for world in sabotaged]
    assert ways["killed once"]["starts"] == {world: 2 if world in sabotaged else 1 for world in serial["scores"]}


def test_sick_agents_spoil_their_own_worlds_only(tmp_path, monkeypatch, capfd):
    folder = t.make(tmp_path, competitors=(Healthy, Saboteur), n_configs=3)
    worlds = t.sabotaged(folder)
    faults = dict(zip(worlds, ["hang", "exit", "kill", "interrupt", "grow", "flood"], strict=True))
    t.plan(monkeypatch, folder, faults)
    limits = adapter.options(timeout=10, retry=1, memory_limit="768MiB")
    with limits, pytest.warns(adapter.ResilientWarning, match="5 of 6 worlds"):
        report = t.run(folder, lanes=2, verbose=True)
    out, err = capfd.readouterr()

    sick = {world: fault for world, fault in faults.items() if fault != "flood"}
    told = {task.worlds[0]: task for task in report.missing}
    by_fault = {fault: told[world] for world, fault in sick.items()}
    assert set(told) == set(sick)
    assert set(t.scores(folder)) == set(worlds) - set(sick)
    assert "floodflood" in out
    assert "raise KeyboardInterrupt" in out  # print_exceptions
    assert "in hang\n" in by_fault["hang"].stacks
    assert by_fault["hang"].history == ("timed out after 10 s",)
    assert (by_fault["kill"].signal, by_fault["kill"].attempts) == ("SIGKILL", 1)
    assert (by_fault["exit"].exitcode, by_fault["exit"].history) == (3, ("died: exit code 3",))
    assert by_fault["interrupt"].reason == "it raised KeyboardInterrupt: as if the user had pressed Ctrl-C"
    assert "raise KeyboardInterrupt" in by_fault["interrupt"].traceback
    assert "more than its memory_limit of 768 MiB" in by_fault["grow"].reason
    assert by_fault["grow"].history[0].endswith("more than 768 MiB")
    assert "in grow\n" in by_fault["grow"].stacks
    for task in told.values():
        assert "negmas_agents.Saboteur" in task.competitors
        assert Path(task.path).name == task.name
        assert "worker" in Path(task.failed_attempts[0].evidence).read_text() or task is by_fault["interrupt"]
    assert err.count("  negmas_agents.Saboteur: 1 world, ") == 5, "each kind of failure once"
    assert "1 world, hung (timed out after 10 s) in hang (negmas_agents.py:" in err
    on_disk = json.loads((folder / "resilient" / "report.json").read_text())
    counts = {"scored": 1, "scored_before": 0, "failed": 5, "interrupted": 0, "not_run": 0, "retried": 0}
    assert on_disk["counts"] == counts


@pytest.mark.slow
def test_total_timeout_fires_while_a_world_hangs(tmp_path, monkeypatch):
    """Nothing completes; the worlds are killed, and the rest of the tournament is given up, each by name."""
    folder = t.make(tmp_path, competitors=(Healthy, Saboteur))
    t.plan(monkeypatch, folder, dict.fromkeys(t.sabotaged(folder), "hang"))
    calls = []
    with pytest.warns(adapter.ResilientWarning, match="2 of 2 worlds"):
        report = t.run(folder, total_timeout=8, tournament_progress_callback=lambda *call: calls.append(call))

    assert (report.ended_by, report.scored, calls) == ("total_timeout", 0, [])
    killed, waiting = report.missing
    assert (waiting.status, waiting.attempts, waiting.reason) == ("not run", 0, "total_timeout (8 s) was over")
    if t.starts(folder)[killed.worlds[0]]:  # unless the machine is so slow that no worker was there in time
        assert (killed.status, killed.attempts, killed.reason) == ("interrupted", 1, "total_timeout (8 s) was over")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One tournament of four worlds in five runs; what each has left behind is looked at by several tests.

    At first one world has the marker of a process that is dead, one that of another host, one raises, one dies.
    """
    folder = t.make(tmp_path_factory.mktemp("runs"), competitors=(Healthy, Saboteur), n_configs=2)
    sound, elsewhere, raising, dying = worlds = [t.name_of(world_set) for world_set in t.assigned(folder)]
    running = {world: place / "attempts" / "_running" for world, place in t.set_folders(folder).items()}
    foreign = running[elsewhere] / "runelsewhere.example.7"
    for path in (running[sound] / f"run{os.uname().nodename}.{2**22 + 1}", foreign):
        path.parent.mkdir(parents=True)
        path.touch()

    def run(**kwargs):
        calls = []
        report = t.run(folder, tournament_progress_callback=lambda *call: calls.append(call), **kwargs)
        told = {task.worlds[0]: task for task in report.tasks if task.worlds}
        markers = {world: [path.name for path in running[world].glob("*")] for world in worlds}
        seen = {"calls": calls, "told": told, "markers": markers, "starts": t.starts(folder)}
        return SimpleNamespace(report=report, scores=t.scores(folder), **seen)

    with pytest.MonkeyPatch.context() as patch, adapter.options(marker_wait=0, retry=10):
        t.plan(patch, folder, {raising: "interrupt", dying: "kill"})
        with pytest.warns(adapter.ResilientWarning, match="3 of 4 worlds"):
            first = run(max_attempts=1)
        with pytest.warns(adapter.ResilientWarning, match="3 of 4 worlds"):
            limited = run(max_attempts=1)
        foreign.unlink()
        t.plan(patch, folder, {})
        return SimpleNamespace(
            worlds=SimpleNamespace(sound=sound, elsewhere=elsewhere, raising=raising, dying=dying),
            first=first,
            limited=limited,
            resuming=run(),
            overriding=run(override_ran_worlds=True),
            last=run(),
        )


@pytest.mark.slow
def test_resuming_runs_only_what_is_missing(runs):
    """And calls back for all; a world that raised may be run again, which negmas' marker forbids in stock."""
    worlds, first, resuming = runs.worlds, runs.first, runs.resuming
    starts = {worlds.sound: 1, worlds.elsewhere: 0, worlds.raising: 1, worlds.dying: 1}

    assert (set(first.scores), first.starts) == ({worlds.sound}, starts)
    assert (resuming.report.scored, resuming.report.scored_before) == (4, 1)
    assert resuming.starts == {world: n if world == worlds.sound else n + 1 for world, n in starts.items()}
    assert [call[1:] for call in resuming.calls] == [(i, 4) for i in range(4)]
    scores = sorted(score for _, _, score in first.scores[worlds.sound])
    assert sorted(resuming.calls[0][0].scores) == scores
    assert resuming.scores[worlds.sound] == first.scores[worlds.sound]


@pytest.mark.slow
def test_a_tournament_that_is_complete_is_not_run_again_unless_that_is_asked_for(runs):
    """In stock, too: it returns before it gets to the worlds."""
    again, last = runs.overriding, runs.last

    assert (again.report.scored, again.report.scored_before) == (4, 0)
    assert again.starts == {world: n + 1 for world, n in runs.resuming.starts.items()}
    assert (last.report.scored_before, last.starts) == (4, again.starts)


@pytest.mark.slow
def test_a_marker_is_cleared_or_stands_as_its_process_is_known_to_be_dead_or_not(runs):
    """A dead process's marker is cleared, another host's stands, and the world is told of, not dropped."""
    told = runs.first.told

    assert told[runs.worlds.sound].status == "scored"
    blocked = told[runs.worlds.elsewhere]
    assert (blocked.status, blocked.attempts) == ("not run", 0)
    assert "process 7 on elsewhere.example is running it" in blocked.reason
    assert runs.first.markers[runs.worlds.sound] == []
    assert runs.first.markers[runs.worlds.elsewhere] == ["runelsewhere.example.7"]


@pytest.mark.slow
def test_max_attempts_counts_over_all_runs(runs):
    """The first run stops there, though ``retry`` allows more; the second one finds the limit reached."""
    for world in (runs.worlds.raising, runs.worlds.dying):
        first, limited = (run.told[world] for run in (runs.first, runs.limited))
        assert (first.status, first.attempts) == ("failed", 1)
        assert (limited.status, limited.attempts) == ("not run", 0)
        assert limited.reason == "it has been started 1 times already (max_attempts)"
    assert runs.limited.starts == runs.first.starts


@pytest.mark.slow
def test_a_living_stranger_s_world_is_waited_for(tmp_path):
    """It ends while the other world runs; then its marker means nothing, and the world is run."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    place = next(iter(t.set_folders(folder).values()))
    (place / "attempts" / "_running").mkdir(parents=True)
    (place / "attempts" / "_running" / f"run{os.uname().nodename}.{stranger.pid}").touch()
    alive = []

    def end_the_stranger(*_):
        alive.append(stranger.poll() is None)
        stranger.kill()
        stranger.wait()

    with adapter.options(marker_wait=600):
        report = t.run(folder, tournament_progress_callback=end_the_stranger)

    assert alive == [True, False]
    assert report.scored == 2
    assert report.tasks[1].worlds[0] == t.name_of(next(s for s in t.assigned(folder) if place.name in str(s)))


@pytest.mark.slow
def test_a_tournament_that_no_worker_can_play_is_refused_with_the_worker_s_words(tmp_path):
    """What all worlds share does not unpickle there; no world is lost one by one for it."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    with pytest.raises(PoolBroken, match="No module named 'no_module_of_that_name'"):
        t.run(folder, generator=print, world_progress_callback=Stubborn())  # it is never called

    report = adapter.last_report()
    assert (report.ended_by, len(report.missing)) == ("PoolBroken", 2)


class Stubborn:
    """A callback that arrives nowhere."""

    def __reduce__(self):
        return importlib.import_module, ("no_module_of_that_name",)


@pytest.mark.slow
def test_what_workers_print_arrives_and_callbacks_are_called(tmp_path, monkeypatch, capfd):
    """One callback in the worker, once a step; one here, whose exception costs no result."""
    folder = t.make(tmp_path, competitors=(Healthy, Saboteur), parallelism="parallel:0.5")
    worlds = t.sabotaged(folder)
    t.plan(monkeypatch, folder, dict.fromkeys(worlds, "say"))
    adapter.install(parallel=True)  # a runner that knows nothing of us
    log = tmp_path / "steps"

    def at_each_step(world):
        with log.open("a") as file:
            print(os.getpid(), world.name, file=file)

    def broken(score, i, n):
        raise RuntimeError(f"{i} of {n}")

    # None: as the tournament was created.
    report = t.run(folder, None, world_progress_callback=at_each_step, tournament_progress_callback=broken)
    out, err = capfd.readouterr()

    assert (report.folder, report.scored, sorted(t.scores(folder))) == (str(folder), 2, worlds)
    for world in worlds:
        assert f"said in {world}\n" in out
        assert f"muttered in {world}\n" in err
    assert report.callback_errors == ("RuntimeError: 0 of 2", "RuntimeError: 1 of 2")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted({world for _, world in lines}) == worlds
    assert len(lines) in (6, 8)  # newer negmas calls once more when a world ends
    assert str(os.getpid()) not in {pid for pid, _ in lines}


def test_what_cannot_travel_is_named_before_the_first_world(tmp_path):
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    with (tmp_path / "log").open("w") as log:

        def logging_callback(world):
            print(world.name, file=log)

        with pytest.raises(NotSendable, match=r"^world_progress_callback cannot be sent .*variable 'log'"):
            t.run(folder, world_progress_callback=logging_callback)

    assert set(t.starts(folder).values()) == {0}


@pytest.mark.slow
def test_an_attempt_that_died_on_its_way_home_is_not_run_again(tmp_path):
    """Its world is saved, and nobody has heard of it: the next attempt gives what is there, and changes no file."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    worlds = load(folder / "assigned_configs.pickle")[0]
    place = markers.set_folder(worlds)
    functions = {"world_generator": t.anac2024_oneshot_world_generator, "world_progress_callback": None}
    functions["score_calculator"] = t.balance_calculator_oneshot
    how = {"tournament": "cup", "seed": None, "max_attempts": sys.maxsize, "verbose": False}
    with (
        WorkerOutput(2**20) as output,
        ResilientPool(1, initializer=worldset.prepare, initargs=(output.folder, travel.pack({}, functions))) as pool,
    ):

        def attempt():
            score = pool.submit(worldset.run_world_set, worlds, **how).result().result[2]
            return sorted(score.scores), t.files(place), markers.count_attempts(place)

        first = attempt()
        assert attempt() == first
    assert first[2] == 1


def config(limit=None, types=(), params=None):
    """A world's configuration, as far as it matters here."""
    return {"world_params": {"time_limit": limit}, "agent_types": list(types), "agent_params": params}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [((900,), 945), ((100, 900), 1890), ((None, 10), 21), ((None,), None), ((float("inf"), None), None)],
)
def test_the_limit_of_a_set_is_that_of_its_worlds_one_after_the_other(limits, expected):
    """Those that declare none are given what the longest one has; the factor is negmas' own."""
    assert world_timeout([config(limit) for limit in limits]) == expected


def test_competitors_are_told_from_those_who_only_fill_the_world():
    """And found where an adapter hides them; where nobody is a competitor, all are named."""
    types = ["a.Adapter", "b.Own", "c.Filler"]
    params = [{"controller_type": "d.Hidden"}, {}, None]

    assert competitors_of([config(None, types, params)], frozenset({"b.Own", "d.Hidden"})) == ("d.Hidden", "b.Own")
    assert competitors_of([config(None, types, params)], frozenset()) == ("d.Hidden", "b.Own", "c.Filler")


def test_a_competitor_that_only_fills_a_world_is_not_one_of_it():
    """It is not scored there; so the world does not count for its coverage."""
    filled = {**config(None, ["a.One", "b.Two", "b.Two"]), "is_default": [False, True, True]}
    both = {**config(None, ["a.One", "b.Two"]), "is_default": [False, False]}

    assert competitors_of([filled], frozenset({"a.One", "b.Two"})) == ("a.One",)
    assert competitors_of([filled, both], frozenset({"a.One", "b.Two"})) == ("a.One", "b.Two")
