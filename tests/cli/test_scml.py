"""``resilient-exec scml``: from arguments to ranking, with real tournaments of seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing all of scml says this and that about other libraries
    pytest.importorskip("scml.utils")

from test_report_schema import SCHEMA, misfits

from resilient_exec.cli import main
from resilient_exec.cli.scml import competitors

# -P: as the installed command is run, without the current folder in the path.
COMMAND = [sys.executable, "-W", "ignore", "-P", "-m", "resilient_exec", "scml"]

AGENTS = """
import os
from scml.oneshot.agents import RandomOneShotAgent, GreedyOneShotAgent

class Healthy(RandomOneShotAgent):
    pass

class Exits(RandomOneShotAgent):
    def step(self):
        try:
            open("has exited", "x")
        except FileExistsError:
            return
        os._exit(7)

not_a_class = 1
"""


def run(*arguments, cwd):
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_agents.py").write_text(AGENTS)
    return tmp_path


def look_here(named, **_):
    """In this process: that it is done in a worker is seen in test_competitors.py."""
    return {one: competitors.look_at(one.module, [one.name], ".")[0] for one in named}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["std", "NoSuchAgent"], ["NoSuchAgent", "GreedyStdAgent"]),
        (["oneshot", "my_agents:Nobody", "A"], ["Nobody", "my_agents has Exits, Healthy"]),
        (["oneshot", "json:JSONDecoder"], ["json:JSONDecoder is not an agent"]),
        (["oneshot", "--retry-failed"], ["--resume"]),
        (["oneshot", "GreedyOneShotAgent"], ["two competitors"]),
        (["oneshot", "--per-world", "9"], ["--per-world", "9"]),
        (["oneshot", "--resume"], ["--output"]),
        (["oneshot", "--resume", "--output", "nothing"], ["nothing"]),
        (["oneshot", "--steps", "0"], ["--steps", "0"]),
        (["oneshot", "--steps", "2"], ["--steps is 2", "3 or more"]),
        (["std", "--steps", "4"], ["--steps is 4", "5 or more"]),
        (["oneshot", "--seed", "-1"], ["--seed", "-1"]),
        (["collusion"], ["collusion"]),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_world(arguments, words, folder, monkeypatch, capsys):
    """In this process, since loading scml takes seconds; that the exit status is ``main``'s is seen below."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(competitors, "look", look_here)
    try:
        status = main(["scml", *arguments])
    except SystemExit as refused:  # argparse's way
        status = refused.code
    finally:
        sys.modules.pop("my_agents", None)
    err = capsys.readouterr().err
    assert status == 2
    for word in words:
        assert word in err
    assert not list(folder.glob("scml-*"))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A tournament whose agent exits in the first of four worlds; one of the three that are finished is lost; resumed.

    What the first command and the resuming one have said, and the starts of the finished worlds before and after.
    """
    folder = tmp_path_factory.mktemp("played")
    (folder / "my_agents.py").write_text(AGENTS)
    agents = ["my_agents:Exits", "my_agents:Healthy", "GreedyOneShotAgent"]
    arguments = ["oneshot", *agents, "--configs", "1", "--steps", "3", "--workers", "1"]
    first = run(*arguments, "--retries", "0", "--output", "out", cwd=folder)
    assert first.returncode == 3, first.stderr
    stage = folder / "out" / "tournament-stage-0001"
    report = json.loads((stage / "resilient" / "report.json").read_text())
    victim, *finished = sorted(path.parent for path in stage.glob("*/results.json"))
    assert len(finished) == 4
    shutil.rmtree(victim)

    def starts():
        return {path: path.stat().st_mtime_ns for world in finished for path in world.glob("attempts/att_*")}

    before = starts()
    resumed = run("oneshot", "--resume", "--retry-failed", "--output", "out", "--workers", "2", cwd=folder)
    counts = json.loads((stage / "resilient" / "report.json").read_text())["counts"]
    return SimpleNamespace(
        folder=folder, first=first, resumed=resumed, counts=counts, report=report, starts=(before, starts())
    )


def test_a_sick_competitor_is_named(played):
    assert "  Exits: 1 world, exited with status 7 in step\n" in played.first.stdout


def test_beside_the_ranking_stands_what_it_is_worth(played):
    """Two of three competitors were in the world that was lost; when it has been made up for, nothing is amiss."""
    rows, resumed = ranked(played.first.stdout), ranked(played.resumed.stdout)

    assert set(rows.values()) == {"3/4", "4/4"}
    assert rows["my_agents.Exits"] == "3/4"
    assert "Beware: the ranking is biased: competitors were scored in different shares" in played.first.stdout
    assert set(resumed.values()) == {"4/4"}
    assert "Beware" not in played.resumed.stdout


def ranked(out):
    """The worlds of each competitor in the ranking."""
    table = out.partition("competitor\n")[2].partition("\n\n")[0]
    return {line.split()[-1]: line.split()[-2] for line in table.splitlines()}


def scores(out):
    """The score of each competitor in the ranking."""
    table = out.partition("competitor\n")[2].partition("\n\n")[0]
    return {line.split()[-1]: line.split()[1] for line in table.splitlines()}


def test_nothing_but_what_is_told_is_on_stdout_and_stderr(played):
    assert played.first.stdout.startswith("Ranking\n")
    for line in played.first.stderr.splitlines():
        assert line.startswith("resilient-exec: ")


def test_the_options_of_the_begin_are_kept_and_other_ones_are_told(played):
    err = played.resumed.stderr
    assert "with its options: --workers 2 --retries 0" in err or "with its options: --retries 0 --workers 2" in err
    assert "other than at its begin: --workers 2 (it was 1)" in err


def test_all_of_ours_lies_in_one_place(played):
    stage = played.folder / "out" / "tournament-stage-0001"
    ours = {path.name for path in (stage / "resilient").iterdir()}
    assert ours >= {"report.json", "health.json", "health.csv", "progress.json", "conduct.jsonl", "provenance.json"}
    assert "lock" not in ours
    assert not list(stage.rglob("resilient-*"))
    assert not list(stage.rglob("*.tmp"))


def test_the_report_names_worlds_by_their_folders_and_has_the_evidence(played):
    for task in played.report["tasks"]:
        folder = played.folder / "out" / "tournament-stage-0001" / task["name"]
        assert task["path"] == str(folder)
        assert folder.is_dir()
        assert task["start"] < task["end"]
        assert task["duration"] > 0
    assert list(misfits(played.report, SCHEMA)) == []
    (lost,) = (task for task in played.report["tasks"] if task["status"] == "failed")
    (attempt,) = lost["failed_attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["exitcode"]) == (1, "died", 7)
    assert "exited with status 7" in Path(attempt["evidence"]).read_text()
    assert played.report["failures"] == ["my_agents.Exits: 1 world, exited with status 7 in step"]


def test_a_tournament_of_another_track_is_not_gone_on_with(played, capsys):
    """Its worlds would all be lost."""
    assert main(["scml", "std", "--resume", "--output", str(played.folder / "out")]) == 2
    assert "resilient-exec scml oneshot --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_seed_makes_the_same_tournament(folder):
    """Created anew, with another number of workers, in a process with another order of sets."""
    small = ["my_agents:Healthy", "GreedyOneShotAgent", "--configs", "2", "--steps", "3"]
    tables = []
    for workers, seed in (("1", "7"), ("2", "7"), ("2", "8")):
        done = run("oneshot", *small, "--seed", seed, "--workers", workers, "--output", f"out{len(tables)}", cwd=folder)
        assert done.returncode == 0, done.stderr
        tables.append(scores(done.stdout))
    assert tables[0] == tables[1] != tables[2]


def test_a_tournament_is_resumed_without_running_the_finished_worlds(played):
    before, after = played.starts
    assert (played.counts["scored"], played.counts["scored_before"]) == (6, 4)
    assert before == after
    assert len(before) == 4


def test_a_tournament_with_all_worlds_scored_ends_well_and_with_a_ranking(played):
    assert played.resumed.returncode == 0, played.resumed.stderr
    assert "Ranking" in played.resumed.stdout
    assert "Healthy" in played.resumed.stdout


@pytest.mark.slow
def test_a_finished_tournament_is_not_run_twice(played):
    again = run("oneshot", "--configs", "1", "--output", "out", cwd=played.folder)
    assert again.returncode == 2
    assert "--resume" in again.stderr


@pytest.mark.slow  # the tests above see all of it, but in two commands
def test_a_tournament_of_healthy_competitors_needs_no_resuming(folder):
    small = ["--configs", "1", "--steps", "3", "--workers", "2"]
    done = run("oneshot", "my_agents:Healthy", "GreedyOneShotAgent", *small, "--output", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Ranking" in done.stdout
    report = json.loads((folder / "out" / "tournament-stage-0001" / "resilient" / "report.json").read_text())
    assert report["counts"]["scored"] == report["planned"] > 0
