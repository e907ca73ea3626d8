"""Whose code was running when a world failed, in real tournaments; and how healthy the competitors were."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import negmas_tournaments as t
import pytest
from negmas_agents import Healthy
from negmas_guilty import Heir, Model

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.blame.history import ConductLog, load_measured
from resilient_exec.adapters.negmas.worlds import seeding

HEIR, MODEL = "negmas_guilty.Heir", "negmas_guilty.Model"
DOES = (
    *("respond kill", "propose hang", "init interrupt", "before_step interrupt", "step take"),
    "step grow dawdle",
)


def run_with_losses(folder, **kwargs):
    with pytest.warns(adapter.ResilientWarning):
        return t.run(folder, **kwargs)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One tournament; in each of its worlds the heir does something else."""
    seeding.reseed(1)  # with the seed below: in a world of chance nobody may make the heir an offer to respond to
    folder = t.make(tmp_path_factory.mktemp("guilty"), competitors=(Heir, Model), n_configs=3)
    worlds = sorted(t.name_of(world_set) for world_set in t.assigned(folder))
    by_world = dict(zip(worlds, DOES, strict=True))
    # 20 s, since worlds that do not hang took more than 6 s on a machine with twice as many busy processes as CPUs.
    limits = adapter.options(timeout=20, retry=1, memory_limit="768MiB", step_timeout=1, seed=1)
    with pytest.MonkeyPatch.context() as patch, limits:
        t.plan(patch, folder, by_world)
        report = run_with_losses(folder, lanes=2)
    told = {by_world[task.worlds[0]]: task for task in report.tasks}
    return SimpleNamespace(
        folder=folder, report=report, told=told, health={row.competitor: row for row in report.health}
    )


@pytest.mark.parametrize(
    ("what", "method", "step", "known_by", "fault"),
    [
        ("respond kill", "respond", 1, "register", "died"),
        ("propose hang", "hang", 1, "stack", "timed_out"),
        ("init interrupt", "interrupt", 0, "stack", "raised"),
        ("before_step interrupt", "interrupt", 1, "stack", "raised"),
        ("step take", "take", 1, "stack", "out_of_memory"),
    ],
)
def test_the_agent_on_stage_is_named_however_the_world_failed(played, what, method, step, known_by, fault):
    """The heir, and not the model whose code it inherits and which plays in the same world."""
    (who,) = played.told[what].on_stage
    assert (who.competitor, who.known_by, who.fault) == (HEIR, known_by, fault)
    # Not always the first one: what other worlds have left in a worker is not charged to this one.
    assert who.attempt == played.told[what].attempts
    assert who.step >= step
    assert (who.step == 0) == (step == 0)
    assert who.agent
    assert who.method == method  # the innermost one in a file of theirs
    assert f"on stage: {HEIR} (agent {who.agent}) in " in str(played.told[what])


def test_who_was_on_stage_stands_in_the_report_on_disk(played):
    tasks = json.loads((played.folder / "resilient" / "report.json").read_text())["tasks"]
    named = [task["on_stage"][0]["competitor"] for task in tasks if "on_stage" in task]
    assert named == [HEIR] * 5


def test_the_health_of_each_competitor_is_told(played):
    heir, model = played.health[HEIR], played.health[MODEL]
    assert (heir.worlds, heir.scored, heir.spoiled) == (6, 1, 5)
    assert (heir.hangs, heir.crashes, heir.memory_kills, heir.ended_worlds) == (1, 1, 1, 2)
    assert heir.spoiled_by == {"died": 1, "timed_out": 1, "raised": 2, "out_of_memory": 1}
    assert heir.peak_memory > 768 << 20
    assert heir.grown >= 150 << 20
    assert heir.slow_steps == 2
    assert heir.wall_worst >= 1.2
    assert not heir.is_sound
    assert (model.worlds, model.scored, model.spoiled, model.failures, model.slow_steps) == (6, 1, 0, 0, 0)
    assert model.is_sound
    assert model.steps > 0
    assert 0 < model.cpu_median <= model.cpu_p95 <= model.cpu_worst
    assert model.grown < 150 << 20


def test_the_health_lies_beside_the_results_as_json_and_csv(played):
    plain = json.loads((played.folder / "resilient" / "health.json").read_text())
    with (played.folder / "resilient" / "health.csv").open() as file:
        rows = {row["competitor"]: row for row in csv.DictReader(file)}
    assert [row["competitor"] for row in plain] == [HEIR, MODEL]
    assert set(rows[HEIR]) == set(plain[0])
    assert rows[HEIR]["hangs"] == "1"
    assert rows[HEIR]["spoiled_by"].split() == [f"{k}={v}" for k, v in plain[0]["spoiled_by"].items()]


def test_all_of_that_is_there_for_a_later_run(played):
    lines = list(ConductLog(played.folder).lines())
    spoiled = sorted(line.on_stage.fault for line in lines if line.final)
    assert spoiled == ["died", "out_of_memory", "raised", "raised", "timed_out"]
    assert sorted(line.on_stage.fault for line in lines if not line.final) == spoiled
    (scored,) = (path.parent for path in played.folder.glob("*/results.json"))
    agents = load_measured(scored)
    steps = {name: sum(len(one.cpu) for one in agents if one.competitor == name) for name in (HEIR, MODEL)}
    assert steps == {name: played.health[name].steps for name in (HEIR, MODEL)}


@pytest.mark.slow
def test_who_spoils_too_many_worlds_plays_no_more(tmp_path, monkeypatch):
    """The worlds with it are listed as not run, all others are run."""
    folder = t.make(tmp_path, competitors=(Heir, Healthy, Model), n_configs=1)
    types = {t.name_of(s): t.agents_in(s) for s in t.assigned(folder)}
    with_heir = {world for world, kinds in types.items() if "Heir" in kinds}
    t.plan(monkeypatch, folder, dict.fromkeys(with_heir, "step interrupt"))
    with adapter.options(retry=1, disqualify_after=1):
        report = run_with_losses(folder)

    told = {task.worlds[0]: task for task in report.tasks}
    assert {world for world, task in told.items() if task.status == "scored"} == set(types) - with_heir
    assert sum(told[world].status == "failed" for world in with_heir) == 1
    out = [task for task in report.tasks if task.status == "not run"]
    assert len(out) == len(with_heir) - 1
    for task in out:
        assert task.reason == f"{HEIR} is disqualified for having spoiled 1 world (disqualify_after)"
    assert {row.competitor: row.disqualified for row in report.health}[HEIR]
    assert len(report.tasks) == report.planned
