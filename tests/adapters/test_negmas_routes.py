"""Every route of negmas, scml and anl that ends in a process pool, with a real tournament each (slow)."""

from __future__ import annotations

import inspect
import json
import os
import random
import subprocess
import sys

import negmas_negotiators as n
import numpy as np
import pytest
from negmas.helpers.timeout import TimeoutCaller
from negmas.tournaments.neg.simple import cartesian
from scml import utils
from scml.oneshot.agents import GreedyOneShotAgent, RandomOneShotAgent
from scml.scml2020.agents import BuyCheapSellExpensiveAgent, DecentralizingAgent
from scml.std.agents import GreedyStdAgent, RandomStdAgent

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import checks

pytestmark = pytest.mark.slow

RUNNERS = sorted(
    name
    for name, function in inspect.getmembers(utils, inspect.isfunction)
    if name.startswith("anac20") and "parallelism" in inspect.signature(function).parameters
)


@pytest.fixture(scope="module", autouse=True)
def thread_of_negmas():
    """Serial runs, in this process, leave negmas' own thread behind; it is there before each test, so it is no leak."""
    TimeoutCaller.run(lambda: None, timeout=10)


def competitors_for(runner):
    """Two of scml's own agents that may play there."""
    if runner == "anac2024_std":
        return GreedyStdAgent, RandomStdAgent
    return (
        (GreedyOneShotAgent, RandomOneShotAgent)
        if "oneshot" in runner
        else (DecentralizingAgent, BuyCheapSellExpensiveAgent)
    )


def scored(runner, folder, parallelism):
    """How many worlds of a tiny tournament get a score."""
    function = getattr(utils, runner)
    settings = {"n_configs": 1, "n_runs_per_world": 1, "min_factories_per_level": 1, "n_competitors_per_world": 2}
    settings |= {"max_worlds_per_config": 2, "n_agents_per_competitor": 2 if "collusion" in runner else 1}
    settings = {k: v for k, v in settings.items() if k in inspect.signature(function).parameters}
    results = function(
        competitors_for(runner), tournament_path=folder, parallelism=parallelism, n_steps=5, n_processes=2, **settings
    )
    return results.scores["run_id"].nunique() if len(results.scores) else 0


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_year_and_league_scores_as_many_worlds_as_a_serial_run(runner, tmp_path):
    """Some runners fail in stock, before or in each world, one after the other; ours need not mend that."""
    try:
        serial = scored(runner, tmp_path / "serial", "serial")
    except Exception as error:
        pytest.skip(f"stock {runner} fails serially: {type(error).__name__}: {error}")
    if not serial:
        pytest.skip(f"stock {runner} scores no world serially")
    with adapter.options(max_workers=2):
        assert scored(runner, tmp_path / "ours", "resilient") == serial
    assert adapter.last_report().missing == ()


def test_anl_s_tournament_has_the_negotiations_of_a_serial_run():
    """Not its scores for certain: negmas draws a number for each second of the wall clock."""
    anl = pytest.importorskip("anl.anl2024")
    from anl.anl2024.negotiators.builtins import Boulware, Conceder, Linear

    def run(njobs):
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002  it is the one that negmas draws from
        results = anl.anl2024_tournament(
            competitors=(Boulware, Conceder, Linear),
            n_scenarios=2,
            n_outcomes=30,
            n_repetitions=1,
            n_steps=20,
            nologs=True,
            njobs=njobs,
            verbosity=0,
        )
        details = results.details.to_dict("records")
        assert not any(record["has_error"] for record in details)
        return len(details), sorted((str(record["scenario"]), str(record["partners"])) for record in details)

    serial = run(-1)
    adapter.install(negotiations=True)
    with adapter.options(max_workers=2):
        assert run(0) == serial
    assert (adapter.last_report().scored, serial[0]) == (18, 18)


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


@pytest.mark.parametrize("league", ["std", "oneshot"])
def test_scml_s_command_line_goes_through_the_pool(league, tmp_path):
    name = {"std": "StdAgent", "oneshot": "OneShotAgent"}[league]
    competitors = ";".join(f"scml.{league}.agents.{kind}{name}" for kind in ("Greedy", "Random"))
    ours = [sys.executable, "-W", "ignore", "-m", "resilient_exec", "run", "--workers", "2", "-m", "scml.cli"]
    theirs = ["tournament2024", "--ttype", league, "--competitors", competitors, "--configs", "1", "--runs", "1"]
    small = ["--steps", "10", "--cw", "2", "--parallel", "--log", str(tmp_path), "--verbosity", "0"]
    done = subprocess.run(
        [*ours, *theirs, *small], env=os.environ, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = tmp_path.rglob("resilient-report.json")
    told = json.loads(report.read_text())
    assert told["counts"]["scored"] == told["planned"] > 0
