"""What is said beside a ranking when worlds are missing."""

from __future__ import annotations

import json

import pytest

from resilient_exec.adapters.negmas.report import report
from resilient_exec.adapters.negmas.report.coverage import Coverage, coverage, remark

BIASED = "the ranking is biased: competitors were scored in different shares of their worlds"


def task(competitors, status="scored"):
    return report.TaskReport(name=competitors, competitors=tuple(competitors), status=status)


def test_each_competitor_s_worlds_are_counted():
    tasks = [task("AB"), task("AC", "failed"), task("BC", "scored before"), task("AB", "not run")]
    left = task("AD", "left to negmas")  # nobody here knows what became of it

    assert coverage([*tasks, left]) == {"A": Coverage(1, 3), "B": Coverage(2, 3), "C": Coverage(1, 2)}


@pytest.mark.parametrize(
    ("worlds", "words"),
    [
        ([], ""),
        ([task("AB"), task("BC", "scored before")], ""),
        (
            [task("AB"), task("AC", "failed"), task("BC")],
            f"{BIASED}: A in 1 of 2, C in 1 of 2, B in 2 of 2",
        ),
        (
            [task("AB"), task("AB", "not run"), task("AB")],
            "the ranking rests on fewer worlds than planned; scored were A in 2 of 3, B in 2 of 3",
        ),
    ],
)
def test_a_ranking_is_called_biased_where_competitors_have_different_shares(worlds, words):
    assert remark(coverage(worlds)) == words


def test_many_competitors_are_told_of_by_those_that_miss_most():
    tasks = [task("abcdefghijkl"), task("a", "failed")]

    assert remark(coverage(tasks)).endswith(
        ": a in 1 of 2, b in 1 of 1, c in 1 of 1, d in 1 of 1, e in 1 of 1, f in "
        "1 of 1, g in 1 of 1, h in 1 of 1 and 4 more"
    )


def test_the_report_has_it_in_its_file_and_says_it_when_something_is_missing(tmp_path, capsys):
    recorder = report.Recorder("worlds", "cup", tmp_path, planned=2)
    recorder.add(task("AB"))
    recorder.add(task("AC", "not run"))
    told = recorder.finish()
    written = json.loads((tmp_path / "resilient" / report.FILE_NAME).read_text())

    assert written["coverage"] == {
        "A": {"scored": 1, "planned": 2},
        "B": {"scored": 1, "planned": 1},
        "C": {"scored": 0, "planned": 1},
    }
    assert written["bias"] == told.bias
    assert f"{BIASED}: C in 0" in told.bias
    assert told.bias in capsys.readouterr().err
