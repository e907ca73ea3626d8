"""What is known of the competitors outlives the program: after a kill and a resume the health counts all runs."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import negmas_tournaments as t
import pytest
from negmas_agents import Healthy
from negmas_guilty import Heir, Model

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.blame.conduct import Conduct
from resilient_exec.adapters.negmas.blame.history import (
    CONDUCT,
    MEASURED,
    ConductLog,
    Line,
    load_measured,
    save_measured,
)
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.blame.stage import Measured
from resilient_exec.adapters.negmas.report.task_report import TaskReport

HEIR = "negmas_guilty.Heir"
SCRIPT = Path(__file__).with_name("script_to_be_killed.py")
WHO = OnStage("m.A", "名@1", "respond", 3, "stack", attempt=2, fault="died")
LINES = [
    Line("w1", ("m.A", "m.B"), WHO, held=5 << 30),
    Line("w1", ("m.A", "m.B"), WHO, final=True),
    Line("w2", ("m.B",), None, final=True),
]


# -- the files


def test_what_was_measured_is_read_as_it_was_written_whatever_it_is_cut_to(tmp_path):
    one = Measured("m.A", array("d", [0.5, 0.123456]), array("d", [0.75, 2.0]), exceptions=3, peak=7 << 30, grown=9)
    save_measured(tmp_path, [one, Measured("m.B")])

    first, second = load_measured(tmp_path)
    assert (list(first.cpu), list(first.wall)) == ([0.5, 0.123456], [0.75, 2.0])
    assert (first.competitor, first.exceptions, first.peak, first.grown) == ("m.A", 3, 7 << 30, 9)
    assert second == Measured("m.B")
    whole = (tmp_path / "resilient" / MEASURED).read_bytes().rstrip()
    for length in range(len(whole)):
        (tmp_path / "resilient" / MEASURED).write_bytes(whole[:length])
        assert load_measured(tmp_path) == []
    assert load_measured(tmp_path / "nowhere") == []


@pytest.mark.parametrize("garbage", ["{}", "[1]", '[{"competitor": 1}]', "null", '[{"cpu": []}]', "\xff", "[[[]]]"])
def test_what_somebody_else_has_put_there_is_nothing_that_was_measured(tmp_path, garbage):
    (tmp_path / "resilient").mkdir()
    (tmp_path / "resilient" / MEASURED).write_bytes(garbage.encode("latin-1"))
    assert load_measured(tmp_path) == []


def test_lines_are_read_as_they_were_written(tmp_path):
    log = ConductLog(tmp_path)
    log.append(LINES[:2])
    log.append([])
    log.append(LINES[2:])
    assert list(ConductLog(tmp_path).lines()) == LINES


def test_wherever_the_file_was_cut_the_lines_before_and_behind_that_are_read(tmp_path):
    log = ConductLog(tmp_path)
    log.append(LINES[:2])
    whole = (tmp_path / "resilient" / CONDUCT).read_bytes()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]  # a line is whole without its end, too
    for length in range(len(whole) + 1):
        (tmp_path / "resilient" / CONDUCT).write_bytes(whole[:length])
        after = ConductLog(tmp_path)
        after.append(LINES[2:])
        assert list(ConductLog(tmp_path).lines()) == LINES[: sum(end <= length for end in ends)] + LINES[2:]


@pytest.mark.parametrize(
    "garbage", ["{}", "[]", "7", '{"place": 1}', "\x00\xff", '{"place": "w", "on_stage": {"x": 1}}']
)
def test_a_line_that_is_none_is_passed_over(tmp_path, garbage):
    (tmp_path / "resilient").mkdir()
    (tmp_path / "resilient" / CONDUCT).write_bytes(garbage.encode("latin-1") + b"\n")
    log = ConductLog(tmp_path)
    log.append(LINES)
    assert list(ConductLog(tmp_path).lines()) == LINES


def test_a_place_where_nothing_can_be_written_costs_nothing_else(tmp_path, caplog):
    log = ConductLog(tmp_path / "gone")
    log.append(LINES)
    save_measured(tmp_path / "gone", [Measured("m.A")])
    assert list(log.lines()) == []
    assert [word in caplog.text for word in ("conduct", "measurements of the agents")] == [True, True]


# -- what is counted


def lost(who="A", attempts=1, fault="died"):
    stage = (OnStage(who, "a@1", "step", 1, attempt=attempts, fault=fault),) if who else ()
    return TaskReport(name="w", competitors=("A", "B"), status="failed", attempts=attempts, on_stage=stage)


SCORED = TaskReport(name="w", competitors=("A", "B"), status="scored", attempts=1)


def health(conduct):
    return {row.competitor: row for row in conduct.finish()}


def test_who_was_disqualified_stays_so_unless_the_option_is_off_or_asks_for_more(tmp_path):
    first = Conduct(["A", "B"], tmp_path, disqualify_after=2)
    assert first.record_settled("w1", lost()) == ()
    assert first.record_settled("w2", lost()) == ("A",)

    assert Conduct(["A", "B"], tmp_path, disqualify_after=2).reason_to_exclude(["A"]) != ""
    assert Conduct(["A", "B"], tmp_path, disqualify_after=3).reason_to_exclude(["A"]) == ""
    assert Conduct(["A", "B"], tmp_path).reason_to_exclude(["A"]) == ""
    assert health(Conduct(["A", "B"], tmp_path, disqualify_after=2))["A"].disqualified
    assert not health(Conduct(["A", "B"], tmp_path))["A"].disqualified


def test_one_more_world_that_is_spoiled_on_resume_adds_to_those_before(tmp_path):
    Conduct(["A"], tmp_path, disqualify_after=2).record_settled("w1", lost())
    second = Conduct(["A"], tmp_path, disqualify_after=2)
    assert second.record_settled("w1", lost()) == ()  # the same world
    assert second.record_settled("w2", lost()) == ("A",)


def test_a_world_counts_once_however_often_it_was_run(tmp_path):
    Conduct(["A"], tmp_path).record_settled("w1", lost())
    Conduct(["A"], tmp_path).record_settled("w1", lost(fault="timed_out"))
    row = health(Conduct(["A"], tmp_path))["A"]
    assert (row.worlds, row.scored, row.spoiled, row.spoiled_by) == (1, 0, 1, {"timed_out": 1})


def test_a_world_that_is_scored_in_the_end_was_not_spoiled(tmp_path):
    Conduct(["A"], tmp_path).record_settled("w1", lost())
    second = Conduct(["A"], tmp_path)
    second.record_settled("w1", SCORED)
    row = health(second)["A"]
    assert (row.worlds, row.scored, row.spoiled, row.spoiled_by) == (1, 1, 0, {})

    (tmp_path / "w1").mkdir()
    save_measured(tmp_path / "w1", [Measured("A", array("d", [1.0, 3.0]), array("d", [1.0, 5.0]), exceptions=2)])
    third = Conduct(["A"], tmp_path, step_timeout=2)
    third.record_scored_before(tmp_path / "w1", ("A",))
    row = health(third)["A"]
    assert (row.worlds, row.scored, row.spoiled, row.steps, row.exceptions) == (1, 1, 0, 2, 2)
    assert (row.cpu_worst, row.wall_worst, row.slow_steps) == (3.0, 5.0, 1)


def test_whose_doing_it_was_is_unknown_and_that_is_kept_too(tmp_path):
    Conduct(["A"], tmp_path, disqualify_after=1).record_settled("w1", lost(who=None))
    second = Conduct(["A"], tmp_path, disqualify_after=1)
    assert second.reason_to_exclude(["A"]) == ""
    row = health(second)["A"]
    assert (row.worlds, row.spoiled) == (1, 0)


# -- in real tournaments


def counts(report):
    """What has to be as in an undisturbed run."""
    return {
        row.competitor: (row.worlds, row.scored, row.steps, row.spoiled, row.spoiled_by, row.disqualified)
        for row in report.health
    }


def check_files(folder, report):
    """The report, the JSON and the CSV say the same."""
    plain = {row["competitor"]: row for row in json.loads((folder / "resilient" / "health.json").read_text())}
    with (folder / "resilient" / "health.csv").open() as file:
        table = {row["competitor"]: row for row in csv.DictReader(file)}
    assert plain == {row.competitor: vars(row) for row in report.health}
    assert {name: int(row["worlds"]) for name, row in table.items()} == {n: row["worlds"] for n, row in plain.items()}


def faults(report):
    return sum(len(task.on_stage) for task in report.tasks)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tournament of six worlds; in two of the heir's four it raises, and dies."""
    folder = t.make(tmp_path, competitors=(Heir, Healthy, Model), n_configs=1)
    heirs = sorted(t.name_of(s) for s in t.assigned(folder) if "Heir" in t.agents_in(s))
    t.plan(monkeypatch, folder, dict(zip(heirs, ("step interrupt", "respond kill"), strict=False)))
    return folder


def run(folder, **kwargs):
    with adapter.options(retry=1, seed=7, **kwargs), pytest.warns(adapter.ResilientWarning):
        return t.run(folder, lanes=1)


@pytest.mark.slow
def test_after_an_interruption_the_health_is_that_of_an_undisturbed_tournament(folder):
    undisturbed = counts(run(folder))
    assert undisturbed[HEIR][:2] == (4, 2)
    t.wipe(folder)

    def interrupt(score, n_settled, n_all):
        if n_settled == 3:
            raise KeyboardInterrupt

    with adapter.options(retry=1, seed=7), pytest.raises(KeyboardInterrupt):
        t.run(folder, lanes=1, tournament_progress_callback=interrupt)
    first = adapter.last_report()
    check_files(folder, first)
    assert counts(first) != undisturbed
    second = run(folder)

    assert counts(second) == undisturbed
    assert second.scored_before > 0
    check_files(folder, second)
    heir = next(row for row in second.health if row.competitor == HEIR)
    assert heir.ended_worlds + heir.crashes == faults(first) + faults(second)


@pytest.mark.slow
def test_who_was_disqualified_does_not_play_after_a_resume(folder):
    first = run(folder, disqualify_after=1)
    before = t.starts(folder)
    second = run(folder, disqualify_after=1)

    assert counts(second) == counts(first)
    assert counts(second)[HEIR][-1]
    assert t.starts(folder) == before
    assert {task.reason for task in second.missing} == {
        f"{HEIR} is disqualified for having spoiled 1 world (disqualify_after)"
    }
    check_files(folder, second)


@pytest.mark.slow
def test_without_the_option_it_plays_again_and_a_tournament_that_begins_anew_knows_nothing(folder, monkeypatch):
    run(folder, disqualify_after=1)
    t.plan(monkeypatch, folder, {})
    with adapter.options(seed=7):
        second = t.run(folder)
    assert second.missing == ()
    assert counts(second)[HEIR][:2] == (4, 4)
    assert counts(second)[HEIR][3:] == (0, {}, False)
    assert not next(row for row in second.health if row.competitor == HEIR).is_sound  # it did raise once

    check_files(folder, second)
    with adapter.options(seed=7):
        third = t.run(folder)  # nothing is left to run; negmas does not get as far as to the worlds
    assert third.scored_before == 6
    assert third.health == second.health
    check_files(folder, third)

    with adapter.options(seed=7):
        anew = t.run(folder, override_ran_worlds=True)
    assert (anew.scored, anew.scored_before) == (6, 0)
    assert all(row.is_sound for row in anew.health)
    assert counts(anew) == counts(second)


@pytest.mark.slow
def test_an_attempt_that_failed_is_noted_before_its_world_has_settled(tmp_path, monkeypatch):
    """The second attempt waits for the line about the first one."""
    folder = t.make(tmp_path, competitors=(Heir, Model), n_configs=1)
    (world, *_) = sorted(t.name_of(s) for s in t.assigned(folder))
    t.plan(monkeypatch, folder, {world: "step die_until_noted"})
    with adapter.options(timeout=30):
        report = t.run(folder)
    assert report.missing == ()
    assert [task.attempts for task in report.retried] == [2]
    heir = next(row for row in report.health if row.competitor == HEIR)
    assert (heir.crashes, heir.spoiled, heir.scored) == (1, 0, 2)
    (line,) = ConductLog(folder).lines()
    assert (line.on_stage.competitor, line.on_stage.fault, line.final) == (HEIR, "died", False)


@pytest.mark.slow
def test_a_program_that_was_killed_has_left_all_that_it_knew(folder):
    """With SIGKILL, when it has just noted that a world has failed for good."""
    undisturbed = counts(run(folder))
    t.wipe(folder)
    command = [sys.executable, "-W", "ignore", SCRIPT, folder, "1", "begin", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(line.final for line in ConductLog(folder).lines()):
        assert process.poll() is None, "it has ended before a world failed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "resilient" / "health.json").exists()
    left = [line for line in ConductLog(folder).lines() if not line.final]

    report = run(folder)

    assert counts(report) == undisturbed
    heir = next(row for row in report.health if row.competitor == HEIR)
    assert heir.ended_worlds + heir.crashes == len(left) + faults(report)
    check_files(folder, report)
