"""Every route of negmas, scml and anl that ends in a process pool, with a real tournament each (slow)."""

from __future__ import annotations

import inspect
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import negmas_negotiators as n
import negmas_tournaments as t
import numpy as np
import pytest
import upstream_stage as stage
from negmas.helpers.timeout import TimeoutCaller
from negmas.sao import RandomNegotiator
from negmas.tournaments.neg.simple import cartesian
from scml import utils
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import checks

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
RUNNERS = sorted(
    name
    for name, function in inspect.getmembers(utils, inspect.isfunction)
    if name.startswith("anac20") and "parallelism" in inspect.signature(function).parameters
)


@pytest.fixture(scope="module", autouse=True)
def thread_of_negmas():
    """Serial runs, in this process, leave negmas' own thread behind; it is there before each test, so it is no leak."""
    TimeoutCaller.run(lambda: None, timeout=10)


def play(runner, how, folder):
    """What came of a tiny tournament in a process of its own: its error, or its scores by world."""
    told = folder / f"{how}.json"
    command = [sys.executable, "-W", "ignore", HERE / "script_route.py", runner, how, folder / how, told]
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(told.read_text())


def without_scores(told):
    """The worlds, and who was scored there."""
    return {world: [record[:2] for record in records] for world, records in told["scores"].items()}


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_year_and_league_has_the_worlds_of_a_serial_run_and_its_scores_where_agents_follow_the_seed(
    runner, tmp_path
):
    """Some runners fail in stock, before or in each world, one after the other; ours need not mend that."""
    serial = play(runner, "serial", tmp_path)
    if not serial["scores"]:
        stock = play(runner, "stock", tmp_path)
        assert not stock["scores"], f"stock scores worlds where a seeded serial run does not: {serial['error']}"
        pytest.skip(f"stock {runner} fails serially: {stock['error'] or 'no world is scored'}")
    ours = play(runner, "resilient", tmp_path)

    assert without_scores(ours) == without_scores(serial)
    assert (ours["error"], ours["missing"]) == ("", 0)
    # The agents of 2020, whom the other leagues need, differ from one serial run to the next.
    if "oneshot" in runner or runner == "anac2024_std":
        assert ours["scores"] == serial["scores"]


@pytest.fixture
def hash_order(monkeypatch):
    """As if this process had been started with it."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")


def anl_records(anl, competitors, njobs, **options):
    """What happened in each negotiation of a real ``anl2024_tournament``."""
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  it is the one that negmas draws from
    settings = {"n_scenarios": 2, "n_outcomes": 30, "n_repetitions": 1, "n_steps": 20, "nologs": True, "verbosity": 0}
    with adapter.options(**options):
        results = anl.anl2024_tournament(competitors=competitors, njobs=njobs, **settings)
    assert not any(record["has_error"] for record in results.details.to_dict("records"))
    return n.records(results)


def test_anl_s_tournament_has_the_records_of_a_serial_run(hash_order):
    """Under a seed, though negotiators draw: with another seed it is different."""
    anl = pytest.importorskip("anl.anl2024")
    from anl.anl2024.negotiators.builtins import Boulware, Linear

    drawing = (Boulware, Linear, RandomNegotiator)
    adapter.install(negotiations=True)
    serial = anl_records(anl, drawing, -1, seed=7)

    assert anl_records(anl, drawing, 0, seed=7, max_workers=2) == serial
    assert anl_records(anl, drawing, 0, seed=7, max_workers=1) == serial
    assert adapter.last_report().scored == len(serial) == 18
    assert anl_records(anl, drawing, -1, seed=8) != serial


def test_anl_s_tournament_has_the_records_of_a_serial_run_without_a_seed_if_nobody_draws():
    anl = pytest.importorskip("anl.anl2024")
    from anl.anl2024.negotiators.builtins import Boulware, Conceder, Linear

    serial = anl_records(anl, (Boulware, Conceder, Linear), -1)
    adapter.install(negotiations=True)
    assert anl_records(anl, (Boulware, Conceder, Linear), 0, max_workers=2) == serial


ANL = """
from anl.anl2024 import anl2024_tournament
from anl.anl2024.negotiators.builtins import Boulware, Linear
from negmas.sao import AspirationNegotiator

class Mine(AspirationNegotiator):
    pass

if __name__ == "__main__":
    results = anl2024_tournament(
        competitors=(Boulware, Linear, Mine), n_scenarios=1, n_outcomes=30, n_repetitions=1, n_steps=20, nologs=True,
        verbosity=0,
    )
    import resilient_exec.adapters.negmas as adapter
    records = results.details.to_dict("records")
    print(f"\\n{len(records)} {sum(bool(r['has_error']) for r in records)} {adapter.last_report().scored}")
"""


def test_a_script_that_runs_an_anl_tournament_goes_through_the_pool(tmp_path):
    pytest.importorskip("anl.anl2024")
    script = tmp_path / "script.py"
    script.write_text(ANL)
    done = resilient(script)
    assert done.stdout.splitlines()[-1].split() == ["9", "0", "9"]


def test_anl_s_plots_that_cannot_be_drawn_are_told_before_the_first_negotiation(tmp_path, monkeypatch):
    anl = pytest.importorskip("anl.anl2024")
    from anl.anl2024.negotiators.builtins import Boulware, Linear

    monkeypatch.setenv("NEGMAS_AUTO_INSTALL_CHROME", "0")
    adapter.install(negotiations=True)
    if checks._draw() is None:
        pytest.skip("plots can be drawn here")
    with pytest.raises(adapter.CheckFailed, match="nologs=True"):
        anl.anl2024_tournament(competitors=(Boulware, Linear), n_scenarios=1, n_outcomes=20, base_path=tmp_path)


@pytest.mark.skipif(not hasattr(cartesian, "continue_cartesian_tournament"), reason="newer versions have it")
def test_a_negotiation_tournament_that_is_complete_is_continued_with_nothing_to_run(tmp_path):
    adapter.install(negotiations=True)
    with adapter.options(max_workers=2):
        first = n.tournament(n_scenarios=1, path=tmp_path / "t", storage_optimization="speed")
        report = adapter.last_report()
        continued = cartesian.continue_cartesian_tournament(tmp_path / "t", verbosity=0, njobs=0)
    assert len(continued.details) == len(first.details) == 18
    assert adapter.last_report() is report


def resilient(*command):
    """``resilient-exec run`` in a process of its own."""
    ours = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "run", "--workers", "2"]
    done = subprocess.run(
        [*ours, *map(str, command)], env=os.environ, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def all_scored(folder):
    """Whether the one tournament below a folder went through the pool, and every world of it was scored."""
    (report,) = folder.rglob("resilient/report.json")
    told = json.loads(report.read_text())
    return told["counts"]["scored"] == told["planned"] > 0


@pytest.mark.parametrize("league", ["std", "oneshot"])
def test_scml_s_command_line_goes_through_the_pool(league, tmp_path):
    name = {"std": "StdAgent", "oneshot": "OneShotAgent"}[league]
    competitors = ";".join(f"scml.{league}.agents.{kind}{name}" for kind in ("Greedy", "Random"))
    theirs = ["tournament2024", "--ttype", league, "--competitors", competitors, "--configs", "1", "--runs", "1"]
    small = ["--steps", "10", "--cw", "2", "--parallel", "--log", tmp_path, "--verbosity", "0"]
    resilient("-m", "scml.cli", *theirs, *small)
    assert all_scored(tmp_path)


@pytest.mark.skipif(stage.version("scml") < (0, 8), reason="stock fails in each world: neg_hidden_time_limit")
@pytest.mark.parametrize("year", [2021, 2022, 2023])
def test_the_collusion_league_of_scml_s_command_line_goes_through_the_pool(year, tmp_path):
    theirs = [f"tournament{year}", "--ttype", "collusion", "--configs", "1", "--runs", "1", "--steps", "8", "--cw", "2"]
    competitors = "DecentralizingAgent;BuyCheapSellExpensiveAgent"
    resilient("-m", "scml.cli", *theirs, "--competitors", competitors, "--parallel", "--log", tmp_path)
    assert all_scored(tmp_path)


@pytest.mark.skipif(stage.version("scml") < (0, 8), reason="its folders lack the generator's year; it is refused")
def test_negmas_command_line_runs_a_tournament_through_the_pool(tmp_path):
    folder = t.make(tmp_path, (GreedyOneShotAgent, RandomOneShotAgent))
    theirs = ["negmas.scripts.app", "tournament", "run", "--parallel", "--eval"]
    resilient("-m", *theirs, "--name", folder.name, "--log", tmp_path)
    assert all_scored(tmp_path)
