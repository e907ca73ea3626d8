"""Entries into agents' code that a negmas does not have: the others are watched, and the organiser is told once."""

from __future__ import annotations

import contextlib
import json

import negmas_tournaments as t
import pytest
from negmas.mechanisms import Mechanism
from negmas.sao import SAOMechanism
from negmas.situated import World
from negmas_agents import Healthy, Thrifty

import resilient_exec.adapters.negmas as adapter
from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.adapters.negmas.blame.stage import Watch
from resilient_exec.adapters.negmas.report import report

GONE = ("negmas.situated.World.summon", "negmas.no_such_module.Stage.enter", "negmas.sao.Nobody.call")


@pytest.fixture
def other_negmas(monkeypatch):
    """One in which some of what we hook has other names."""
    known = entries._entry_points()
    unknown = [(*name.rpartition(".")[::2], entries._hook_call) for name in GONE]
    monkeypatch.setattr(entries, "_entry_points", lambda: (*unknown, *known))


def test_the_negmas_that_is_installed_has_all_of_them():
    assert entries.missing() == ()


def test_what_is_missing_is_named(other_negmas):
    assert entries.missing() == GONE


def test_what_is_there_is_hooked_all_the_same_and_put_back(other_negmas):
    hooked = entries.hooked()
    assert {(World, "call"), (SAOMechanism, "_safe_counter"), (Mechanism, "add")} < set(hooked), "and where they answer"
    before = [vars(owner)[name] for owner, name in hooked]
    with contextlib.ExitStack() as undo:
        watch = Watch({})
        undo.callback(watch.close)
        entries.hook(watch, {}, undo)
        assert all(vars(owner)[name] is not was for (owner, name), was in zip(hooked, before, strict=True))
    assert [vars(owner)[name] for owner, name in hooked] == before


def test_the_organiser_is_told_in_the_report_on_stderr_and_by_one_warning(tmp_path, capsys):
    recorder = report.Recorder("worlds", "cup", tmp_path, planned=1)
    recorder.add(report.TaskReport(name="a", attempts=1))
    recorder.unwatched = GONE[:1]
    told = recorder.finish()
    with pytest.warns(report.ResilientWarning, match=r"^negmas \S+ has no negmas.situated.World.summon: ") as caught:
        report.warn(told)

    assert len(caught) == 1
    assert capsys.readouterr().err.count("has no negmas.situated.World.summon") == 1
    written = json.loads((tmp_path / "resilient" / report.FILE_NAME).read_text())
    assert (written["unwatched"], written["blind"]) == ([GONE[0]], told.blind)


@pytest.mark.slow
def test_it_is_told_once_for_a_tournament_and_not_for_each_world(tmp_path, other_negmas, capfd):
    folder = t.make(tmp_path, competitors=(Healthy, Thrifty))
    with pytest.warns(adapter.ResilientWarning, match="has no") as caught:
        told = t.run(folder)
    assert (told.scored, told.unwatched) == (2, GONE)
    assert len([one for one in caught if one.category is adapter.ResilientWarning]) == 1
    assert capfd.readouterr().err.count("has no negmas") == 1
