"""The table of a task's moves: each move in it is made by the core, each other one is refused."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from core_play import NEVER, Grant, Play

from resilient_exec.core.states import TRANSITIONS, Record, State
from resilient_exec.model.errors import IllegalTransition
from resilient_exec.model.events import event_of
from resilient_exec.model.task import NotSent, Task

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOWED = [(before, after) for before, afters in TRANSITIONS.items() for after in sorted(afters)]
REFUSED = sorted(set(itertools.product(State, State)) - set(ALLOWED))


def _backing_off(p: Play) -> None:
    p.running("a", Grant(1.0))
    p.died("a")


def _doomed(p: Play, *delays: float) -> None:
    p.running("a", Grant(*delays), timeout=1.0)
    p.after(1)


# For each move, how to bring a core to it and through it.
WAYS: dict[tuple[State, State], Callable[[Play], object]] = {
    (State.NEW, State.QUEUED): lambda p: p.submit("a"),
    (State.NEW, State.SETTLED): lambda p: p.submit("a", problem=NotSent("no")),
    (State.QUEUED, State.SENT): lambda p: p.sent("a"),
    (State.QUEUED, State.SETTLED): lambda p: (p.submit("a"), p.cancel("a")),
    (State.SENT, State.RUNNING): lambda p: p.running("a"),
    (State.SENT, State.QUEUED): lambda p: (p.sent("a"), p.gone()),
    (State.SENT, State.DOOMED): lambda p: (p.sent("a"), p.kill("a")),
    (State.SENT, State.SETTLED): lambda p: (p.sent("a"), p.cancel("a")),
    (State.RUNNING, State.SETTLED): lambda p: (p.running("a"), p.ended("a")),
    (State.RUNNING, State.BACKING_OFF): _backing_off,
    (State.RUNNING, State.DOOMED): _doomed,
    (State.DOOMED, State.SETTLED): lambda p: (_doomed(p), p.died("a")),
    (State.DOOMED, State.BACKING_OFF): lambda p: (_doomed(p, 1.0), p.died("a")),
    (State.BACKING_OFF, State.QUEUED): lambda p: (_backing_off(p), p.after(1)),
    (State.BACKING_OFF, State.SETTLED): lambda p: (_backing_off(p), p.kill("a")),
}


@pytest.mark.parametrize(("before", "after"), ALLOWED)
def test_each_move_in_the_table_is_made_by_some_stimulus(
    before: State, after: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[State, State]] = []
    move = Record.move

    def spy(self: Record, state: State) -> None:
        moves.append((self.state, state))
        move(self, state)

    monkeypatch.setattr(Record, "move", spy)
    WAYS[before, after](Play())
    assert moves[-1] == (before, after)


@pytest.mark.parametrize(("before", "after"), REFUSED)
def test_each_other_move_is_refused_with_the_story_and_changes_nothing(before: State, after: State) -> None:
    story = [(1.0, "queued", 0, None), (2.0, "sent", 1, 0)]
    record = Record(Task("a", NEVER), 1, before, attempt=1, rows=list(story))
    with pytest.raises(IllegalTransition) as caught:
        record.move(after)
    assert f"'a' cannot go from {before} to {after}" in str(caught.value)
    assert all(str(event_of("a", row)) in str(caught.value) for row in story)
    assert (record.state, record.attempt, record.story, record.lane) == (before, 1, story, None)


@pytest.mark.parametrize(("before", "after"), ALLOWED)
def test_each_move_in_the_table_is_allowed(before: State, after: State) -> None:
    record = Record(Task("a", NEVER), 1, before)
    record.move(after)
    assert record.state is after


def test_the_table_knows_every_state_and_settled_is_the_end() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.SETTLED] == frozenset()
    assert set(WAYS) == set(ALLOWED)


def test_no_state_leads_back_to_new() -> None:
    assert not any(State.NEW in afters for afters in TRANSITIONS.values())
