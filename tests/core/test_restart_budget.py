"""Failed starts are counted by cause and time: what all lanes see at once is one failure."""

from __future__ import annotations

import pytest
from core_play import Play

from resilient_exec.core.restart_budget import Starts
from resilient_exec.core.states import Limits


def starts(patience: float = 30.0) -> Starts:
    return Starts(Limits(start_patience=patience))


@pytest.mark.parametrize("lanes", [1, 4, 40])
def test_one_failure_that_many_lanes_see_is_one(lanes: int) -> None:
    budget = starts(patience=0.0)
    for now in (0.0, 0.2):  # twice, 0.1 s apart at least
        for _ in range(lanes):
            assert budget.failed(now, "no", hopeless=True, lasting=False) is None
    assert budget.failed(0.6, "no", hopeless=True, lasting=False) is not None


def test_trouble_that_may_pass_breaks_the_pool_when_it_has_lasted() -> None:
    budget, now = starts(), 0.0
    while now < 30.0:
        assert budget.failed(now, "no", hopeless=True, lasting=False) is None
        now += budget.wait()
    broken = budget.failed(now, "the service does not answer", hopeless=True, lasting=False)
    assert broken is not None
    assert "the service does not answer" in broken


def test_what_can_never_work_breaks_it_in_three_rounds() -> None:
    budget = starts()
    assert budget.failed(0.0, "no module", hopeless=True, lasting=True) is None
    assert budget.failed(0.2, "no module", hopeless=True, lasting=True) is None
    assert budget.failed(0.6, "no module", hopeless=True, lasting=True) is not None


def test_a_success_forgets_how_long_it_has_lasted() -> None:
    budget = starts()
    for now in (0.0, 0.1, 0.3, 0.7):
        budget.failed(now, "no", hopeless=True, lasting=False)
    budget.succeeded()
    for now in (40.0, 40.1, 40.3, 40.7):
        assert budget.failed(now, "no", hopeless=True, lasting=False) is None


def test_more_lanes_are_not_more_fragile_than_one() -> None:
    p = Play(4, start_patience=30.0)
    for name in "abcd":
        p.submit(name)
    while p.now < 25.0:
        for lane in range(4):
            p.start_failed(lane)
        assert p.core.broken is None
        p.when_due()
    assert all(p.ready(lane)[0].startswith("lane_ready") for lane in range(4))
