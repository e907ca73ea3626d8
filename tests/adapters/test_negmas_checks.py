"""What is looked at before the first world, so that no hours are spent on a tournament that cannot end well."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import negmas_negotiators as n
import negmas_tournaments as t
import pytest
from negmas.tournaments.neg.simple import cartesian
from negmas_agents import Healthy, Thrifty

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas import checks

# -- room


@pytest.mark.parametrize(
    ("worlds", "free", "fits"), [(756, 302_400_000, True), (756, 302_399_999, False), (0, 0, True)]
)
def test_a_disk_must_have_room_for_the_smallest_worlds(worlds, free, fits):
    assert (checks.room_objection(Path("/somewhere"), worlds, free) is None) == fits


def test_a_disk_without_room_is_told_in_numbers():
    told = checks.room_objection(Path("/somewhere"), 756, 1_200_000)

    for words in ("756 worlds write 302.4 MB", "26.5 GB", "1.2 MB are free in /somewhere", "tournament_path="):
        assert words in told


def usage(free):
    return lambda _: SimpleNamespace(free=free)


def test_no_world_is_run_where_there_is_no_room(tmp_path, monkeypatch):
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    monkeypatch.setattr(shutil, "disk_usage", usage(700_000))
    before = adapter.last_report()
    with pytest.raises(adapter.CheckFailed, match=r"2 worlds write 0.8 MB .*, and 0.7 MB are free"):
        t.run(folder)

    assert set(t.starts(folder).values()) == {0}
    assert adapter.last_report() is before
    assert not (folder / "resilient" / "lock").exists()


@pytest.mark.parametrize(
    ("error", "free", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 100_000, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10**12, True),  # a quota is not seen in the free bytes
        (OSError(errno.ENOSPC, "No space left on device"), 10**9, False),  # an agent's own place
        (OSError(errno.EACCES, "Permission denied"), 0, False),
        (ValueError("No space left on device"), 0, False),
        (None, 0, False),
    ],
)
def test_which_failures_mean_that_the_disk_of_the_results_is_full(monkeypatch, error, free, full):
    monkeypatch.setattr(shutil, "disk_usage", usage(free))

    assert checks.is_full(error, Path("/somewhere"), lanes=2) == full


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_tournament_and_the_report_says_so(tmp_path, monkeypatch):
    """The results of the first of two worlds cannot be written; the other keeps its chance."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    room = iter([10**9])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(room, 1000)))
    with pytest.warns(adapter.ResilientWarning, match="2 of 2 worlds have no score"):
        report = t.run(folder, score_calculator=no_room)

    assert report.ended_by.startswith("a full disk (free some room, then run the tournament again")
    first, other = report.missing
    assert first.reason == "it raised OSError: [Errno 28] No space left on device"
    assert "a full disk" in other.reason


# -- competitors


def test_types_that_cannot_be_imported_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "breaks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["negmas_agents.Healthy", "nowhere_at_all.A", "leaves.A", "breaks.A", "negmas_agents.Nobody"]
    why = checks.unusable(names)

    assert list(why) == names[1:]
    assert why["nowhere_at_all.A"] == "ModuleNotFoundError: No module named 'nowhere_at_all'"
    assert why["leaves.A"] == "SystemExit: 3"
    assert "ZeroDivisionError" in why["breaks.A"]
    assert "Nobody" in why["negmas_agents.Nobody"]


def test_an_import_that_ends_its_process_is_found_by_trying_one_by_one():
    asked = []

    def ask(names):
        asked.append(list(names))
        return "the worker died" if "b.B" in names else {name: "gone" for name in names if name == "c.C"}

    assert checks.find_unusable(["a.A", "b.B", "c.C"], ask) == {"b.B": "the worker died", "c.C": "gone"}
    assert asked == [["a.A", "b.B", "c.C"], ["a.A"], ["b.B"], ["c.C"]]
    assert checks.find_unusable(["a.A", "c.C"], ask) == {"c.C": "gone"}
    assert asked[4:] == [["a.A", "c.C"]]


AGENTS = """
import os, sys
from pathlib import Path
from scml.oneshot.agents import RandomOneShotAgent
if Path(__file__).with_name("fatal").exists():
    os._exit(9)

class Mine(RandomOneShotAgent):
    pass
"""


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """A tournament with a competitor whose module only this program can import."""
    (tmp_path / "only_here.py").write_text(AGENTS)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import only_here
    yield t.make(tmp_path / "t", competitors=(only_here.Mine, Healthy))
    del sys.modules["only_here"]


REFUSED = "1 of the tournament's types cannot be imported in a worker process.* lost: only_here.Mine: "


@pytest.mark.slow
def test_a_competitor_that_a_worker_cannot_import_is_named_before_the_first_world(only_here):
    with pytest.raises(adapter.CheckFailed, match=f"{REFUSED}ModuleNotFoundError.* PYTHONPATH"):
        t.run(only_here)
    assert set(t.starts(only_here).values()) == {0}


@pytest.mark.slow  # a worker for each type
def test_a_competitor_that_ends_the_worker_that_imports_it_is_named(only_here, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fatal").touch()
    with pytest.raises(adapter.CheckFailed, match=f"{REFUSED}.*exited with status 9"):
        t.run(only_here)
    assert set(t.starts(only_here).values()) == {0}

    (tmp_path / "fatal").unlink()
    assert t.run(only_here).scored == 2


@pytest.mark.slow
def test_a_negotiator_that_a_worker_cannot_import_is_named_before_the_first_negotiation(tmp_path, monkeypatch):
    (tmp_path / "only_there.py").write_text(
        "from negmas.sao import AspirationNegotiator\nclass Mine(AspirationNegotiator):\n    pass\n"
    )
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        import only_there
    adapter.install(negotiations=True)
    before = adapter.last_report()
    with (
        adapter.options(max_workers=1),
        pytest.raises(adapter.CheckFailed, match=r"lost: only_there.Mine: .*No module named 'only_there'.* PYTHONPATH"),
    ):
        n.tournament((only_there.Mine, n.HEALTHY[0]), n_scenarios=1)
    assert adapter.last_report() is before


# -- a folder in use


@pytest.mark.slow
def test_a_second_run_of_a_tournament_at_the_same_time_is_refused(tmp_path):
    """From a thread of this process, and from another process, while the first is at its worlds; then it is free."""
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    refusals = []

    def run_it_again(*_):
        thread = threading.Thread(target=refused_here)
        thread.start()
        thread.join()
        script = "import sys, negmas_tournaments as t; from pathlib import Path; t.run(Path(sys.argv[1]))"
        command = [sys.executable, "-W", "ignore", "-c", script, folder]
        there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=there, capture_output=True, text=True, check=False, timeout=120)
        refusals.append((done.returncode, done.stderr.strip().splitlines()[-1]))

    def refused_here():
        try:
            t.run(folder)
        except adapter.CheckFailed as error:
            refusals.append(str(error))

    first = iter([run_it_again])
    report = t.run(folder, tournament_progress_callback=lambda *_: next(first, lambda: None)())

    mine, theirs = refusals
    assert report.scored == 2
    assert mine.endswith("another thread of this very process runs this tournament; wait for it, or copy the folder")
    assert theirs[0] == 1
    assert f"in use: process {os.getpid()} on " in theirs[1]
    assert not (folder / "resilient" / "lock").exists()
    assert json.loads((folder / "resilient" / "report.json").read_text())["counts"]["scored"] == 2


# -- plots


@pytest.mark.parametrize(
    "asked",
    [
        {"path": None, "save_scenario_figs": True, "plot_fraction": 1.0},
        {"path": "somewhere", "save_scenario_figs": False, "plot_fraction": 0.0},
    ],
)
def test_a_tournament_without_plots_does_not_need_to_draw(asked, monkeypatch):
    monkeypatch.setattr(checks, "_draw", lambda: "it cannot be")

    checks.check_plots(asked)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("AttributeError: module 'matplotlib.cm' has no attribute 'get_cmap'", 'pip install "matplotlib<3.9"'),
        ("RuntimeError: Kaleido requires Google Chrome", "run plotly_get_chrome once"),
    ],
)
def test_plots_that_cannot_be_drawn_are_told_before_the_first_negotiation(words, remedy, tmp_path, monkeypatch):
    """With the remedy, and how to do without."""
    monkeypatch.setattr(checks, "_draw", lambda: words)
    adapter.install(negotiations=True)
    with pytest.raises(adapter.CheckFailed) as refused:
        n.tournament(n_scenarios=1, path=tmp_path / "t", plot_fraction=0.5)

    for part in (words, remedy, "save_scenario_figs=False", "nologs=True"):
        assert part in str(refused.value)
    assert not (tmp_path / "t").exists()


def test_a_serial_run_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_draw", lambda: "it cannot be")
    adapter.install(negotiations=True)

    assert len(n.tournament(n_scenarios=1, njobs=-1, self_play=False, path=tmp_path / "t").details) == 12


@pytest.mark.slow
def test_drawing_is_tried_with_what_the_installed_negmas_draws_with(monkeypatch):
    """Whether it works depends on the machine; how it fails does not."""
    monkeypatch.setenv("NEGMAS_AUTO_INSTALL_CHROME", "0")
    words = checks._draw()
    if words is not None:
        assert ("kaleido" if hasattr(cartesian, "run_isolated_tasks") else "get_cmap") in words.lower()
