"""A tournament that was killed with SIGKILL goes on as if nothing had happened, on old and on new negmas."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import negmas_tournaments as t
import psutil
import pytest
from negmas.tournaments import evaluate_tournament
from negmas_agents import Healthy, Saboteur

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.worlds.provenance import FILE_NAME

SCRIPT = Path(__file__).with_name("script_to_be_killed.py")


def resume(folder, lanes=1):
    """In this process, and without naming the generator."""
    with adapter.options(max_workers=lanes):
        t.run_tournament(folder, parallelism="resilient")
    return adapter.last_report()


def outcome(folder):
    """Everything that has to be as in an undisturbed run: scores, files and their rows, the tables and the ranking."""
    ranking = evaluate_tournament(folder).total_scores
    return {
        "scores": t.scores(folder),
        "files": {world: t.files(place) for world, place in t.set_folders(folder).items()},
        "markers": [str(path) for path in folder.glob("*/attempts/_running/*")],
        "rows": {path.name: path.read_bytes().count(b"\n") for path in folder.glob("*.csv")},
        "table": sorted(row.partition(",")[2] for row in (folder / "scores.csv").read_text().splitlines()),
        "ranking": {row["agent_type"]: pytest.approx(row["score"]) for _, row in ranking.iterrows()},
    }


def start(folder, lanes, how):
    """The program, in a session of its own; it says nothing."""
    command = [sys.executable, "-W", "ignore", SCRIPT, folder, str(lanes), how]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(process, moment):
    """Until ``moment()`` is true, or the program has ended."""
    deadline = time.monotonic() + 240
    while process.poll() is None and not moment():
        assert time.monotonic() < deadline, "the program did not get that far"
        time.sleep(0.002)


def kill(process, *, whole_tree):
    """With SIGKILL: the program alone, or with everything that it has started, as a power cut does."""
    tree = psutil.Process(process.pid).children(recursive=True) if whole_tree and process.poll() is None else []
    process.kill()
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


@pytest.fixture
def folder(tmp_path):
    """A tournament of six worlds, in which a competitor appends to a file of its own."""
    return t.make(tmp_path, competitors=(Healthy, Saboteur), n_configs=3)


@pytest.fixture
def undisturbed(folder):
    """What an undisturbed run leaves; the folder is then as if it had never been run."""
    report = t.run_seeded(folder)
    assert (report.scored, report.bias) == (6, "")
    seen = outcome(folder)
    t.wipe(folder)
    return seen


def finished(folder):
    return {path.parent for path in folder.glob("*/results.json")}


def attempts(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/attempts/att_*")}


def test_a_program_that_was_killed_goes_on_and_nothing_is_lost_or_run_twice(folder, undisturbed):
    """Killed while its third world or a later one runs; a results file is cut short, as by a power cut.

    The resumed run is not told the generator (which scml 0.7 does not store), nor the seed.
    """
    assert not (folder / "resilient" / FILE_NAME).exists()
    process = start(folder, 1, "begin")
    wait_for(process, lambda: len(finished(folder)) >= 2 and len(attempts(folder)) >= 3)
    kill(process, whole_tree=False)
    assert process.returncode == -signal.SIGKILL
    before, begun = finished(folder), attempts(folder)
    torn, empty = sorted(before)[:2]
    os.truncate(torn / "results.json", 7)
    os.truncate(empty / "results.json", 0)

    report = resume(folder)

    again = [path for path in attempts(folder).keys() - begun.keys() if path.parent.parent in before - {torn, empty}]
    assert (report.scored, report.scored_before, again) == (6, len(before) - 2, [])
    assert len(attempts(folder)) <= 6 + 1 + 2  # one lane, killed once, and two that were destroyed
    assert outcome(folder) == undisturbed
    assert resume(folder).scored_before == 6


def test_a_folder_that_does_not_know_its_generator_is_refused_before_the_first_world(folder):
    """One that scml 0.7 has made and that we have not seen; newer ones store a name that is enough."""
    if t.anac2024_oneshot_world_generator.__class__.__name__ != "partial":
        pytest.skip("this scml stores a generator that needs nothing else")
    with pytest.raises(ValueError, match=r"also needs 'year'.*run_tournament\(\.\.\., world_generator=\.\.\.\)"):
        resume(folder)
    assert set(t.starts(folder).values()) == {0}


def has_got_on(folder, what, so_far):
    """Whether the program has begun, and there is more of ``what`` (attempts, finished world sets) than there was."""
    return (folder / "resilient" / FILE_NAME).exists() and (what is None or len(what(folder)) > so_far)


@pytest.mark.slow
@pytest.mark.parametrize("whole_tree", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_killed_again_and_again_at_any_moment(folder, undisturbed, lanes, whole_tree):
    """Five kills, each some moment after a world has begun or ended; each next run begins at once."""
    assert not (folder / "resilient" / FILE_NAME).exists()
    dice = random.Random(f"{lanes} {whole_tree}")
    known: dict[Path, int] = {}  # attempts of the finished world sets
    kills = 0
    while kills < 5:
        process = start(folder, lanes, "resume" if (folder / "resilient" / FILE_NAME).exists() else "begin")
        what = dice.choice((attempts, finished, None))
        so_far = len(what(folder)) if what else -1
        wait_for(process, functools.partial(has_got_on, folder, what, so_far))
        time.sleep(dice.random() * 0.5)
        if process.poll() is not None:
            break  # it has got to its end
        kill(process, whole_tree=whole_tree)
        kills += 1
        now = {place: len(list(place.glob("attempts/att_*"))) for place in finished(folder)}
        assert {place: now[place] for place in known} == known
        known = now

    report = resume(folder, lanes)
    assert report.scored == 6
    assert len(attempts(folder)) <= 6 + lanes * kills
    assert outcome(folder) == undisturbed


@pytest.mark.slow
def test_a_copy_of_the_folder_s_configuration_is_all_that_a_resume_needs(folder, undisturbed):
    """Everything that was run is gone, what we noted stays: the same tournament comes out of it."""
    assert not finished(folder)
    resume(folder, lanes=2)
    assert outcome(folder) == undisturbed
    shutil.rmtree(min(finished(folder)))
    assert resume(folder).scored_before == 5
    assert outcome(folder) == undisturbed
