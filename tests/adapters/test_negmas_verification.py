"""World sets that are run twice: who does not follow the seed is found."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from importlib import metadata

import negmas_tournaments as t
import pytest
from negmas_agents import Hasher, Healthy, Thrifty, Watcher

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.worlds.seeding import Seeded
from resilient_exec.adapters.negmas.worlds.verification import compare, is_caused_by_agents


@pytest.mark.slow
def test_an_agent_that_goes_by_the_clock_is_found_with_its_world_and_the_others_are_not(tmp_path):
    """The folder has one run of each world in it, and nothing of the second one."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty, Watcher))
    with adapter.options(verify=6), pytest.warns(adapter.ResilientWarning, match="had other scores"):
        report = t.run_seeded(folder)

    assert (report.scored, report.missing, len(report.verified)) == (6, (), 6)
    names = {one.name: {name.rpartition(".")[2] for name in one.competitors} for one in report.verified}
    assert {name for name, who in names.items() if "Watcher" in who} == {one.name for one in report.unsteady}
    assert len(report.unsteady) == 4
    assert {one.under for one in report.unsteady} == {"same"}
    assert str(report).count("somebody goes by the clock, or by a generator of its own") == 4
    assert "did not follow the seed" in str(report)
    written = json.loads((folder / "resilient" / "report.json").read_text())["verified"]
    assert [one["name"] for one in written] == [one.name for one in report.verified]
    assert set(t.starts(folder).values()) == {1}


@pytest.mark.slow
def test_an_agent_that_goes_by_the_order_of_hashes_is_found_and_told_apart(tmp_path, monkeypatch):
    """Unless the installed scml does so itself; then nobody is accused."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty, Hasher))
    is_told = is_caused_by_agents(metadata.version("scml"))
    expected = pytest.warns(adapter.ResilientWarning, match="order of hashes") if is_told else nullcontext()
    with adapter.options(verify=6), expected:
        report = t.run_seeded(folder)

    assert (report.scored, len(report.verified)) == (6, 6)
    guilty = {one.name for one in report.verified if "negmas_agents.Hasher" in one.competitors}
    assert {one.name for one in report.unsteady} == (guilty if is_told else set())
    assert {one.under for one in report.unsteady} == ({"another"} if is_told else set())
    assert set(t.starts(folder).values()) == {1}


@pytest.mark.parametrize(
    ("scml", "is_told"), [("0.7.7", False), ("0.8.2", False), ("0.8.3", True), ("0.10.0rc1", True)]
)
def test_where_scml_s_own_worlds_go_by_the_order_of_hashes_nobody_is_accused_of_it(scml, is_told):
    assert is_caused_by_agents(scml) == is_told


@pytest.mark.parametrize("own", ["7", str(2**32 - 1)])
def test_the_other_hash_seed_is_another_one_that_python_takes(own):
    other = Seeded(None, 7, own).other_environment["PYTHONHASHSEED"]
    assert other != own
    assert 0 <= int(other) < 2**32


def test_verifying_without_a_seed_is_refused_before_the_first_world(tmp_path):
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    with (
        adapter.options(verify=1),
        pytest.raises(ValueError, match=r"verify=1: without a seed.*options\(seed=\.\.\.\)"),
    ):
        t.run(folder)
    assert set(t.starts(folder).values()) == {0}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({("a", "A"): [1.0]}, {("a", "A"): [1.0]}, ""),
        ({("a", "A"): [math.nan]}, {("a", "A"): [math.nan]}, ""),
        ({("a", "X:m.A"): [1.0]}, {("a", "X:m.A"): [1.5]}, "a (m.A) 1, then 1.5"),
        (
            {("a", "A"): [1.0, 2.0]},
            {("a", "A"): [1.0], ("b", "B"): [0.1]},
            "a (A) 1, 2, then 1; b (B) no score, then 0.1",
        ),
    ],
)
def test_scores_are_compared_to_the_last_digit(before, after, words):
    assert compare(before, after) == words
