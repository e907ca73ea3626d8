"""Who is to blame, without a tournament: stacks and notes are texts, competitors are places in the file system."""

from __future__ import annotations

import pytest

from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.adapters.negmas.blame.conduct import Conduct
from resilient_exec.adapters.negmas.blame.culprit import Source, on_stage, source_of
from resilient_exec.adapters.negmas.blame.disqualify import Disqualification
from resilient_exec.adapters.negmas.blame.health import percentile
from resilient_exec.adapters.negmas.blame.notes import NOBODY, OnStage, parse_note
from resilient_exec.adapters.negmas.report.task_report import TaskReport
from resilient_exec.model.dossier import AttemptReport

A = Source("pack.team_a.agent.A", frozenset({"/s/pack/team_a/agent.py"}), package="/s/pack/team_a", top="/s/pack")
B = Source("pack.team_b.agent.B", frozenset({"/s/pack/team_b/agent.py"}), package="/s/pack/team_b", top="/s/pack")
ONE = Source("duo.One", frozenset({"/w/duo.py"}), spans=(("/w/duo.py", 10, 20),))
TWO = Source("duo.Two", frozenset({"/w/duo.py"}), spans=(("/w/duo.py", 30, 40),))
HEIR = Source("heir.Heir", frozenset({"/w/heir.py"}), inherited=frozenset({"/w/duo.py"}))


def stacks(*frames, thread="Thread 0x1 (most recent call first):"):
    lines = [f'  File "{file}", line {line} in {function}' for file, line, function in frames]
    return "\n".join([thread, *lines, '  File "/x/worldset.py", line 9 in run_world_set'])


def failed(text="", note="", outcome="timed_out", traceback=""):
    return AttemptReport(1, outcome, stacks=text, note=note, traceback=traceback)


def blamed(sources, **what):
    found = on_stage([failed(**what)], sources)
    return (found[0].competitor, found[0].known_by) if found else None


def test_the_innermost_frame_of_a_competitor_counts_whatever_it_called():
    text = stacks(("/lib/numpy/x.py", 1, "dot"), ("/s/pack/team_b/agent.py", 5, "respond"), ("/s/negmas/m.py", 2, "f"))
    assert blamed([A, B], text=text) == (B.name, "stack")


def test_a_helper_in_the_package_of_a_competitor_is_its_code():
    text = stacks(("/s/pack/team_a/deep/er/helper.py", 5, "think"))
    assert blamed([A, B], text=text) == (A.name, "stack")


def test_code_that_two_competitors_share_is_nobody_s_unless_the_register_says_whose():
    text = stacks(("/s/pack/shared.py", 5, "think"))
    assert blamed([A, B], text=text) is None
    assert blamed([A, B], text=text, note=OnStage(B.name, "b@1", "step", 3).note()) == (B.name, "stack")


def test_of_two_in_one_module_the_one_whose_code_has_the_line():
    assert blamed([ONE, TWO], text=stacks(("/w/duo.py", 33, "respond"))) == (TWO.name, "stack")
    assert blamed([ONE, TWO], text=stacks(("/w/duo.py", 3, "helper"), ("/w/duo.py", 12, "step"))) == (ONE.name, "stack")


def test_who_runs_inherited_code_is_to_blame_for_it():
    text, note = stacks(("/w/duo.py", 33, "respond")), OnStage(HEIR.name, "h@1", "respond", 3).note()
    assert blamed([HEIR, TWO], text=text, note=note) == (HEIR.name, "stack")
    assert blamed([HEIR], text=text) == (HEIR.name, "stack")


def test_a_stack_that_shows_somebody_else_wins_over_the_register():
    text, note = stacks(("/s/pack/team_b/agent.py", 5, "respond")), OnStage(ONE.name, "o@1", "step", 3).note()
    assert blamed([ONE, B], text=text, note=note) == (B.name, "stack")


def test_without_a_frame_of_theirs_the_register_says_it():
    note = OnStage(A.name, "a@1", "propose", 4).note()
    assert blamed([A, B], note=note, outcome="died") == (A.name, "register")
    (who,) = on_stage([failed(note=note, outcome="died")], [A, B])
    assert (who.agent, who.method, who.step, who.fault, who.attempt) == ("a@1", "propose", 4, "died", 1)
    assert blamed([A, B], note=NOBODY, outcome="died") is None


def test_a_thread_that_an_agent_left_behind_is_looked_at_only_if_the_register_names_nobody():
    left = '\n\nThread 0x2 (most recent call first):\n  File "/w/duo.py", line 12 in dream'
    text = stacks(("/s/negmas/m.py", 2, "f")) + left
    assert blamed([ONE, A], text=text, note=OnStage(A.name, "a@1", "step", 1).note()) == (A.name, "register")
    assert blamed([ONE, A], text=text, note=NOBODY) == (ONE.name, "stack")


@pytest.mark.parametrize("caller", ["/s/negmas/helpers/timeout.py", entries.__file__])
def test_the_thread_in_which_negmas_calls_negotiators_is_the_world_s(caller):
    text = stacks(("/s/negmas/m.py", 2, "f")) + (
        '\n\nThread 0x2 (most recent call first):\n  File "/w/duo.py", line 12 in respond\n'
        f'  File "{caller}", line 3 in _wrapped'
    )
    note = OnStage(ONE.name, "o@1", "respond", 1).note()
    assert blamed([ONE, A], text=text, note=note) == (ONE.name, "stack")


def test_a_traceback_is_read_from_its_end():
    trace = 'File "/w/duo.py", line 12, in step\n    x()\n  File "/s/pack/team_a/agent.py", line 3, in x\nValueError'
    assert blamed([ONE, A], traceback=trace, outcome="raised") == (A.name, "stack")


@pytest.mark.parametrize("outcome", ["returned", "evicted", "killed", "lost", ""])
def test_attempts_that_nobody_spoiled_are_nobody_s_fault(outcome):
    assert on_stage([failed(note=OnStage(A.name).note(), outcome=outcome)], [A]) == ()


@pytest.mark.parametrize("name", ["mod.Ägent", "mod.make.<locals>.Inner", "m." + "L" * 230, "m.A, agent B, in C"])
@pytest.mark.parametrize("agent", ["00A@1", "", "a, in b, step 3", "名前\n"])
def test_a_note_says_what_was_noted(name, agent):
    if ", agent " not in name:
        assert parse_note(OnStage(name, agent, "step", 12).note()) == OnStage(name, agent, "step", 12)
    else:
        assert parse_note(OnStage(name, agent, "step", 12).note()) is not None


def test_a_name_that_is_too_long_for_a_note_is_found_among_the_competitors():
    long = Source("m." + "N" * 900)
    assert blamed([A, long], note=OnStage(long.name, "n@1", "step", 1).note(), outcome="died") == (
        long.name,
        "register",
    )


def test_other_notes_name_nobody():
    for text in ("", NOBODY, "at step 7", "on stage: half a no"):
        assert parse_note(text) is None


def test_where_the_code_of_a_class_lies_is_found_without_importing_it():
    import sys

    assert source_of("no.such.Thing") == Source("no.such.Thing")
    assert source_of("scml.oneshot.agents.greedy.GreedyOneShotAgent").own == frozenset()
    assert any(path.endswith("turtledemo/bytedesign.py") for path in source_of("turtledemo.bytedesign.Designer").own)
    assert "turtledemo.bytedesign" not in sys.modules


def test_who_spoils_as_many_worlds_as_the_rule_says_is_out():
    rule = Disqualification(2)
    rule.record_spoiled("A", "w1")
    rule.record_spoiled("A", "w1")  # again, on resume: one world
    assert (rule.disqualified, rule.reason(["A", "B"])) == ((), "")
    rule.record_spoiled("A", "w2")
    assert rule.disqualified == ("A",)
    assert rule.reason(["B"]) == ""
    assert rule.reason(["A", "B"]) == "A is disqualified for having spoiled 2 worlds (disqualify_after)"


def test_a_world_that_was_scored_after_all_or_spoiled_by_another_one_is_not_held_against_anybody():
    rule = Disqualification(1)
    rule.record_spoiled("A", "w1")
    rule.record_score("w1")
    assert rule.disqualified == ()
    rule.record_spoiled("A", "w2")
    rule.record_spoiled("B", "w2")
    assert rule.disqualified == ("B",)


def test_without_the_rule_nobody_is_out():
    rule = Disqualification(None)
    for number in range(1000):
        rule.record_spoiled("A", f"w{number}")
    assert (rule.disqualified, rule.reason(["A"])) == ((), "")


def test_a_filler_that_spoils_worlds_is_told_of_and_not_disqualified():
    conduct = Conduct(["A"], disqualify_after=1)
    filler = OnStage("Filler", "f@1", "step", 1, attempt=1, fault="died")
    told = TaskReport(name="w", competitors=("A",), status="failed", attempts=1, on_stage=(filler,))
    assert conduct.record_settled("w", told) == ()
    assert conduct.reason_to_exclude(["A", "Filler"]) == ""


def test_an_attempt_whose_culprit_is_unknown_is_charged_to_nobody():
    conduct = Conduct(["A"], disqualify_after=1)
    first = OnStage("A", "a@1", "step", 1, attempt=1, fault="died")
    told = TaskReport(name="w", competitors=("A",), status="failed", attempts=2, on_stage=(first,))
    assert conduct.record_settled("w", told) == ()


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([], 0.5, 0.0), ([1.0], 0.95, 1.0), ([1, 2, 3, 4], 0.5, 2), ([1, 2], 1.0, 2)]
)
def test_a_percentile_is_one_of_the_values(values, share, expected):
    assert percentile(values, share) == expected
