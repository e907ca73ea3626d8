"""``resilient-exec status``: how a tournament stands, from its files alone, without negmas."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from socket import gethostname

import pytest

from resilient_exec.adapters import places
from resilient_exec.cli import main
from resilient_exec.cli.status import state_of

NOW = 1_000_000.0


def make(tmp_path, *, progress=None, report=None, scored=0):
    folder = tmp_path / "night" / "t-stage-0001"
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps({"n_worlds": 6}))
    for i in range(scored):
        (folder / f"w{i}").mkdir()
        (folder / f"w{i}" / "results.json").write_text("{}")
    if progress is not None:
        places.replace(
            folder, "progress.json", json.dumps({"version": 1, "planned": 6, "lanes": 2, "begun": NOW, **progress})
        )
    if report is not None:
        places.replace(folder, "report.json", json.dumps({"version": 2, "planned": 6, **report}))
    return folder


@pytest.fixture
def running(tmp_path):
    """A tournament that this process holds, as a run does."""
    one = {"name": "w4", "competitors": ["my.Hangs", "x.Greedy"], "attempt": 2, "since": NOW - 30, "pid": 77}
    progress = {"counts": {"scored": 3, "failed": 1}, "running": [one], "took": [10.0, 20.0]}
    folder = make(tmp_path, progress=progress, scored=3)
    path = places.to_write(folder, "lock")
    path.write_text(json.dumps({"host": gethostname(), "pid": os.getpid(), "since": "noon"}))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def test_a_running_one_tells_what_runs_and_how_long_it_will_take(running, monkeypatch, capsys):
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert main(["status", str(running.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{running}: running (process {os.getpid()} on {gethostname()}, since noon)"
    assert lines[1:] == [
        "3 of 6 scored, 1 without a score",
        "1 running on 2 workers, about 15 s left",
        "  30 s, attempt 2: Hangs, Greedy (w4, process 77)",
    ]


def test_one_that_was_killed_is_called_so_and_the_command_to_go_on_is_whole(tmp_path, capsys):
    folder = make(tmp_path, progress={"counts": {"scored": 2}}, scored=2)
    places.replace(folder, "command.json", json.dumps({"version": 1, "track": "std", "variables": {}}))
    places.replace(folder, "lock", json.dumps({"host": gethostname(), "pid": 999_999_999, "started": 1.0}))
    assert main(["status", str(tmp_path / "night")]) == 3
    out = capsys.readouterr().out
    assert f"{folder}: killed" in out
    assert "2 of 6 scored" in out
    assert f"go on with: resilient-exec scml std --resume --output {tmp_path / 'night'}" in out


@pytest.mark.parametrize(
    ("ended_by", "state"), [("", "ended"), ("KeyboardInterrupt", "ended by Ctrl-C"), ("SIGTERM", "ended by SIGTERM")]
)
def test_one_that_has_ended_tells_how_and_what_failed(ended_by, state, tmp_path, capsys):
    counts = {"scored": 4, "failed": 2, "interrupted": 0, "not_run": 0}
    report = {"ended_by": ended_by, "counts": counts, "failures": ["my.A: 2 worlds, hung"]}
    folder = make(tmp_path, progress={"begun": 0.0}, report=report, scored=4)
    places.replace(folder, "command.json", json.dumps({"version": 1, "track": "std", "variables": {}}))
    found = state_of(folder, NOW)
    assert (found["state"], found["scored"], found["lost"], found["planned"]) == (state, 4, 2, 6)
    assert main(["status", str(folder)]) == 3
    out = capsys.readouterr().out
    assert "  my.A: 2 worlds, hung" in out
    assert ("--retry-failed" in out) == (ended_by == "")


def test_one_with_all_scored_ends_with_0(tmp_path):
    make(tmp_path, progress={"begun": 0.0}, report={"counts": {"scored": 6}}, scored=6)
    assert main(["status", str(tmp_path / "night")]) == 0


def test_a_folder_of_an_earlier_version_is_read(tmp_path, capsys):
    folder = make(tmp_path, scored=6)
    (folder / "resilient-report.json").write_text(json.dumps({"planned": 6, "ended_by": "", "counts": {"scored": 6}}))
    assert main(["status", str(folder)]) == 0
    assert "6 of 6 scored" in capsys.readouterr().out


@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", "7", '"x"'])
def test_files_that_were_cut_short_are_passed_over(garbage, tmp_path, capsys):
    folder = make(tmp_path, scored=1)
    for name in ("progress.json", "report.json", "command.json", "lock"):
        places.replace(folder, name, garbage)
    assert main(["status", str(folder)]) == 3
    assert "1 of 6 scored" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_tournament_is_said_to_be_none(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["status", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no folder of a tournament" in line


def test_the_json_has_it_all(running, capsys):
    assert main(["status", "--json", str(running)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["state"], found["planned"]) == (1, "running", 6)
    assert found["running"][0]["competitors"] == ["my.Hangs", "x.Greedy"]


def test_nothing_heavy_is_imported_and_nothing_is_changed(tmp_path):
    folder = make(tmp_path, progress={"counts": {}}, scored=1)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    program = "import sys; from resilient_exec.cli import main; main(['status', sys.argv[1]]); "
    program += "print(sorted({'negmas', 'scml', 'loky', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
