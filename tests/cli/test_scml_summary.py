"""What is told at the end, word by word: in a terminal of 80 and 120 columns, and in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("negmas")

from resilient_exec.adapters.negmas.blame.health import Health
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report.report import Report
from resilient_exec.adapters.negmas.report.task_report import FailedAttempt, TaskReport, Verified
from resilient_exec.cli.scml.summary import as_json, summary
from resilient_exec.cli.tables import fit_names

GOLDEN = Path(__file__).parent / "golden"
FINE, LEAKS = "my_agents.Fine", "my_agents.Leaks"
GREEDY = "scml.oneshot.agents.greedy.GreedyOneShotAgent"
TEAM = "scml_agents.scml2025.oneshot.team_276.the_one_with_a_long_module_name.LitaAgentYR"


def world(number, *competitors, **fields):
    name = f"w{number:02}"
    return TaskReport(name=name, path=f"/home/me/night/t/{name}", competitors=competitors, attempts=1, **fields)


def leak(number, other):
    who = OnStage(LEAKS, "00Le@1", "before_step", 3, "stack", 1, "out_of_memory", "my_agents.py:41")
    attempt = FailedAttempt(number=1, outcome="out_of_memory", pid=7, peak_memory=530 << 20)
    return world(
        number,
        LEAKS,
        other,
        status="failed",
        reason="it held 530 MiB, more than its memory_limit of 500 MiB",
        history=("held 530 MiB, more than 500 MiB",),
        on_stage=(who,),
        failed_attempts=(attempt,),
    )


def report(tasks, health, **fields):
    return Report(
        kind="worlds",
        name="t",
        folder="/home/me/night/t",
        planned=len(tasks),
        tasks=tuple(tasks),
        health=health,
        **fields,
    )


def healthy(name, worlds, **fields):
    measured = {"steps": 40, "cpu_median": 0.0012, "cpu_p95": 0.0051, "cpu_worst": 0.0087, "wall_worst": 0.01}
    return Health(name, worlds, **{"scored": worlds, **measured, "peak_memory": 198 << 20, **fields})


def all_lost():
    who = OnStage("my_agents.Broken", "", "init", -1, "stack", 1, "raised", "my_agents.py:16")
    reason = "it raised ValueError: no such file: weights.npy"
    attempt = FailedAttempt(number=1, outcome="raised", traceback="...")
    lost = [
        world(
            i,
            "my_agents.Broken",
            GREEDY,
            status="failed",
            reason=reason,
            history=("raised ValueError",),
            on_stage=(who,),
            failed_attempts=(attempt,),
        )
        for i in range(4)
    ]
    health = (Health("my_agents.Broken", 4, ended_worlds=4, spoiled=4, spoiled_by={"raised": 4}), Health(GREEDY, 4))
    return [], report(lost, health)


def one_lost():
    worlds = (
        [world(i, FINE, GREEDY) for i in range(10)] + [world(i, LEAKS, TEAM) for i in range(10, 19)] + [leak(19, TEAM)]
    )
    health = (
        healthy(FINE, 10),
        healthy(GREEDY, 10, slow_steps=3),
        healthy(TEAM, 10, scored=9),
        healthy(LEAKS, 10, scored=9, memory_kills=1, spoiled=1, spoiled_by={"out_of_memory": 1}, peak_memory=530 << 20),
    )
    return [(GREEDY, 1.0412), (TEAM, 0.9988), (FINE, 0.97), (LEAKS, -0.25)], report(worlds, health)


def none_lost():
    worlds = [world(i, "team1.Mine", "team2.Mine", printed=0) for i in range(19)]
    worlds.append(
        world(19, "team1.Mine", "team2.Mine", printed=33_000_000, log="/home/me/night/t/w19/resilient/output.txt")
    )
    verified = (Verified("w00", ("team1.Mine", "team2.Mine")),)
    health = (healthy("team1.Mine", 20), healthy("team2.Mine", 20))
    return [("team2.Mine", 1.1), ("team1.Mine", 0.9)], report(worlds, health, verified=verified)


CASES = {"all_lost": all_lost, "one_lost": one_lost, "none_lost": none_lost}


@pytest.mark.parametrize("width", [80, 120, None])
@pytest.mark.parametrize("case", CASES)
def test_what_is_told_at_the_end(case, width):
    told = summary(*CASES[case](), width)
    golden = GOLDEN / f"{case}-{width or 'pipe'}.txt"
    assert told == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("case", CASES)
def test_the_tables_fit_the_terminal_and_no_class_is_cut(case, width):
    scores, told = CASES[case]()
    lines = summary(scores, told, width).splitlines()
    paths = [line for line in lines if "/home/me" in line]  # a path is for copying: never cut, nor wrapped
    assert max(len(line) for line in lines if line not in paths) <= width
    for name, _ in scores:
        assert name.rpartition(".")[2] in " ".join(lines)
    assert "…" not in "".join(lines)


def test_two_classes_of_one_name_are_told_apart():
    assert fit_names(["team1.Mine", "team2.Mine", "a.b.Other"], 0) == ["team1.Mine", "team2.Mine", "Other"]
    assert fit_names(["x.agent.Mine", "y.agent.Mine"], 0) == ["x.agent.Mine", "y.agent.Mine"]
    assert fit_names(["a.Mine", "a.Mine"], 0) == ["Mine", "Mine"], "one and the same"


def test_the_package_goes_and_the_class_never():
    assert fit_names([GREEDY], 30) == ["GreedyOneShotAgent"]
    assert fit_names([GREEDY], 3) == ["GreedyOneShotAgent"]
    assert fit_names([GREEDY], 100) == [GREEDY]


def test_nothing_that_agents_say_is_obeyed_by_a_terminal():
    who = OnStage("my.A", "a", "\x1b[2Jstep", 1, "register", 1, "raised", "")
    lost = world(
        0,
        "my.A",
        status="failed",
        reason="it raised ValueError: \x1b]0;mine\x07\x1b[31mred",
        history=("raised ValueError",),
        on_stage=(who,),
        failed_attempts=(FailedAttempt(number=1, outcome="raised"),),
    )
    unsteady = Verified("w", ("my.A",), "a\x1b[1m (x) 1, then 2", "same")
    told = summary([], report([lost], (), verified=(unsteady,)), 80)
    assert "\x1b" not in told
    assert "ValueError: red" in told


def test_the_json_has_a_version_the_status_the_ranking_and_the_report():
    scores, told = one_lost()
    found = as_json(scores, told, 3)
    assert (found["version"], found["exit_status"]) == (1, 3)
    assert found["ranking"][0] == {"rank": 1, "competitor": GREEDY, "score": 1.0412, "scored": 10, "planned": 10}
    assert found["report"]["version"] == 2
    assert found["report"]["failures"] == [
        "my_agents.Leaks: 1 world, out of memory (over 500 MiB) in before_step (my_agents.py:41)"
    ]
    unranked = as_json([], all_lost()[1], 3)["ranking"]
    assert [(row["rank"], row["score"], row["scored"], row["planned"]) for row in unranked] == [(None, None, 0, 4)] * 2
