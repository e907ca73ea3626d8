"""Memory that runs out: the competitor that has taken it is to blame, whoever was on stage at the end."""

from __future__ import annotations

import json

import pytest

from resilient_exec.adapters.negmas.blame.growth import Growth, blame, file_name
from resilient_exec.adapters.negmas.blame.notes import OnStage

MIB = 1 << 20
LAST = OnStage("m.Last", "a", "respond", 3, "register", 1, "out_of_memory")


def grown(folder, *calls):
    growth = Growth(folder, 1)
    held = 200 * MIB
    for competitor, method, size in calls:
        held += size * MIB
        growth.add(competitor, method, size * MIB, held)
    return held


def test_whoever_has_taken_most_is_to_blame_with_the_method_in_which_it_did(tmp_path):
    held = grown(tmp_path, *[("m.Leaks", "before_step", 60)] * 5, ("m.Leaks", "step", 2), ("m.Last", "respond", 3))
    who = blame(tmp_path, LAST, 1, held + 5 * MIB)
    assert (who.competitor, who.method, who.known_by) == ("m.Leaks", "before_step", "growth")
    assert (who.attempt, who.fault) == (1, "out_of_memory")
    assert blame(tmp_path, None, 1, held).competitor == "m.Leaks"


def test_what_came_after_the_last_writing_is_that_of_who_was_on_stage(tmp_path):
    """It takes a gigabyte at once, which nobody has measured when its worker is killed."""
    held = grown(tmp_path, ("m.Other", "init", 100))
    assert blame(tmp_path, LAST, 1, held + 1000 * MIB) is LAST


@pytest.mark.parametrize(
    "calls",
    [
        (),
        [("m.A", "step", 20)],
        [("m.A", "step", 40)],
        [("m.A", "step", 70), ("m.B", "step", 60), ("", "", 60)],
        [("", "", 400)],
    ],
)
def test_where_nobody_has_taken_most_of_it_the_one_on_stage_is_named(calls, tmp_path):
    held = grown(tmp_path, *calls)
    assert blame(tmp_path, LAST, 1, held) is LAST
    assert blame(tmp_path, None, 1, held) is None


def test_the_stack_is_kept_where_it_shows_the_same_competitor(tmp_path):
    held = grown(tmp_path, *[("m.Last", "before_step", 60)] * 5)
    assert blame(tmp_path, LAST, 1, held) is LAST


def test_the_file_is_gone_when_the_world_has_ended_and_attempts_have_their_own(tmp_path):
    growth = Growth(tmp_path, 2)
    growth.close()
    growth.add("m.A", "step", 40 * MIB, 300 * MIB)
    path = tmp_path / "resilient" / file_name(2)
    assert json.loads(path.read_text()) == {"held": 300 * MIB, "by": [["m.A", "step", 40 * MIB]]}
    assert blame(tmp_path, LAST, 1, 400 * MIB) is LAST
    growth.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", "null", '{"held": 1}', '{"held": 1, "by": [[1]]}', '{"held": "x", "by": []}']
)
def test_a_file_that_was_cut_short_says_nothing(garbage, tmp_path):
    (tmp_path / "resilient").mkdir()
    (tmp_path / "resilient" / file_name(1)).write_text(garbage)
    assert blame(tmp_path, LAST, 1, 0) is LAST
