"""The report: counts, files, words."""

from __future__ import annotations

import json
import warnings

import pytest

from resilient_exec import Event, NotSendable, TaskTimeout, WorkerDied
from resilient_exec.adapters.negmas.blame.notes import OnStage
from resilient_exec.adapters.negmas.report import attempts, report
from resilient_exec.wire.payload import RemoteTraceback

STACKS = 'Thread 1\n  File "x.py", line 3 in think'


def death(exitcode):
    error = WorkerDied("task 'w' died", stacks=STACKS)
    error.exitcode = exitcode
    return error


def test_a_clean_tournament_has_a_report_and_says_nothing(tmp_path, capsys):
    recorder = report.Recorder("worlds", "cup", tmp_path, planned=2, workers=3)
    recorder.add(report.TaskReport(name="a", attempts=1))
    recorder.add(report.TaskReport(name="b", status="scored before"))
    told = recorder.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.warn(told)

    written = json.loads((tmp_path / "resilient" / report.FILE_NAME).read_text())
    assert written["counts"] == {"scored": 2, "scored_before": 1, "failed": 0, "interrupted": 0} | {
        "not_run": 0,
        "retried": 0,
    }
    assert written["tasks"] == [
        {"name": "a", "status": "scored", "attempts": 1},
        {"name": "b", "status": "scored before", "attempts": 0},
    ]
    assert {"python", "negmas", "scml", "pandas", "loky"} <= set(written["versions"])
    assert report.last_report() is told
    assert capsys.readouterr() == ("", "")


def test_what_has_no_score_is_told_on_stderr_once_by_its_cause_and_in_one_warning(tmp_path, capsys):
    recorder = report.Recorder("worlds", "cup", tmp_path, planned=9)
    story = [Event(1.0, "died", "w", 1, detail={"exitcode": -9}), Event(2.0, "died", "w", 2, detail={"exitcode": -11})]
    for i in range(5):
        who = OnStage("m.B", "b@1", "respond", 3, attempt=2, fault="died", place="m.py:41")
        fields = attempts.failure(death(-11), story)
        recorder.add(
            report.TaskReport(
                name=f"w{i}", competitors=("m.A", "m.B"), status="failed", attempts=2, on_stage=(who,), **fields
            )
        )
    told = recorder.finish()
    err = capsys.readouterr().err
    with pytest.warns(report.ResilientWarning) as caught:
        report.warn(told)

    assert "resilient_exec: 0 of 9 worlds scored (cup)" in err
    assert err.count("m.B: 5 worlds, killed by SIGSEGV in respond (m.py:41)\n") == 1
    assert str(tmp_path / "resilient" / report.FILE_NAME) in err
    assert [str(w.message) for w in caught] == [
        (
            "5 of 9 worlds have no score: m.B: 5 worlds, killed by SIGSEGV in respond (m.py:41); see "
            f"{tmp_path / 'resilient' / report.FILE_NAME}"
        )
    ]
    assert told.missing[0].history == ("died: SIGKILL", "died: SIGSEGV")
    assert (told.missing[0].signal, told.missing[0].exitcode) == ("SIGSEGV", -11)
    assert "line 3 in think" in told.missing[0].stacks


def test_an_exception_comes_with_its_words_and_its_traceback():
    error = ZeroDivisionError("by zero")
    error.__cause__ = RemoteTraceback("Traceback ...\n  in agent.py\nZeroDivisionError: by zero\n")

    assert attempts.failure(error, [Event(1.0, "raised", "w", 1, detail={"exception": "ZeroDivisionError"})]) == {
        "reason": "it raised ZeroDivisionError: by zero",
        "history": ("raised ZeroDivisionError",),
        "traceback": "Traceback ...\n  in agent.py\nZeroDivisionError: by zero",
    }
    assert attempts.failure(KeyboardInterrupt(), [])["reason"] == "it raised KeyboardInterrupt"


def test_each_way_to_fail_has_words():
    events = [
        Event(0.0, "queued", "w"),
        Event(1.0, "timed_out", "w", 1, detail={"limit": 2.5}),
        Event(2.0, "lost", "w", 2, detail={"why": "its lane closed"}),
        Event(3.0, "killed", "w", 3, detail={"why": "shutdown"}),
        Event(4.0, "not_sent", "w", 4, detail={"why": "no pickle"}),
        Event(5.0, "died", "w", 5, detail={"exitcode": None}),
    ]
    words = (
        "timed out after 2.5 s",
        "lost: its lane closed",
        "killed: shutdown",
        "not sent: no pickle",
        "died: exit code None",
    )

    assert attempts.history(events) == words
    assert attempts.failure(TaskTimeout("over 3 s", stacks=STACKS), [])["stacks"] == STACKS
    assert attempts.failure(NotSendable("what"), [])["reason"] == "what"


def test_a_disk_that_is_full_costs_the_file_and_nothing_else(tmp_path, caplog):
    recorder = report.Recorder("worlds", "cup", tmp_path / "gone", planned=0)

    assert recorder.finish() is report.last_report()
    assert "the report could not be written" in caplog.text


def test_a_callback_s_error_is_told_though_all_worlds_are_scored(tmp_path, capsys):
    recorder = report.Recorder("worlds", "cup", None, planned=0)
    recorder.callback_failed(ValueError("no such bar"))
    recorder.finish()

    assert "the progress callback raised ValueError: no such bar" in capsys.readouterr().err
