"""Retry policies: budgets per cause, tenacity's strategies, and the default wait."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter

import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exec.model.policies import RetryPolicy, as_policy, default_wait, hashed_fraction
from resilient_exec.model.ports import Failure

CAUSES = {"died": "deaths", "timed_out": "timeouts", "out_of_memory": "memory", "raised": "errors"}


def failure(cause: str = "died", count: int = 1, attempts: int | None = None, **more: object) -> Failure:
    """The failure of a task that has failed ``count`` times, always of ``cause``."""
    values = {"key": "a", "elapsed": 0.0, "exception": ValueError("no") if cause == "raised" else None}
    return Failure(cause=cause, counts=Counter({cause: count}), attempts=attempts or count, **{**values, **more})


def raised(exception: BaseException, **more: object) -> Failure:
    return failure("raised", exception=exception, **more)


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cause", "granted"), [("died", 2), ("timed_out", 1), ("out_of_memory", 1), ("raised", 0)])
def test_the_default_budgets(cause: str, granted: int) -> None:
    policy = RetryPolicy()
    assert [policy.next_delay(failure(cause, n)) is not None for n in (1, 2, 3)] == [n <= granted for n in (1, 2, 3)]


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("budget", [0, 1, 5])
def test_each_cause_is_granted_its_own_budget_and_no_more(cause: str, budget: int) -> None:
    budgets = dict.fromkeys(CAUSES.values(), 0) | {CAUSES[cause]: budget}
    policy = RetryPolicy(**budgets)
    for other in CAUSES:
        granted = sum(policy.next_delay(failure(other, n)) is not None for n in range(1, 9))
        assert granted == (budget if other == cause else 0)


def test_one_cause_does_not_eat_the_budget_of_another() -> None:
    counts = Counter(died=2, timed_out=1)
    policy = RetryPolicy()
    assert policy.next_delay(Failure("a", "timed_out", counts, 3, 0.0, None)) is not None
    assert policy.next_delay(Failure("a", "died", counts, 3, 0.0, None)) is not None
    counts["died"] += 1
    assert policy.next_delay(Failure("a", "died", counts, 4, 0.0, None)) is None


@pytest.mark.parametrize("cause", ["killed", "lost", "not_sent", "evicted", "nonsense"])
def test_other_causes_are_not_tried_again(cause: str) -> None:
    assert RetryPolicy(9, 9, 9, 9).next_delay(failure(cause)) is None


@pytest.mark.parametrize("exception", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_of_the_task_is_not_tried_again(exception: BaseException) -> None:
    assert RetryPolicy(errors=5).next_delay(raised(exception)) is None


# -- a number instead of a policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [1, 2, 3, 7])
@pytest.mark.parametrize("cause", ["died", "timed_out", "out_of_memory"])
def test_a_number_means_that_many_attempts_in_all(retry: int, cause: str) -> None:
    policy = as_policy(retry)
    assert [n for n in range(1, 10) if policy.next_delay(failure(cause, n)) is not None] == list(range(1, retry))


def test_a_number_counts_deaths_and_timeouts_together() -> None:
    policy = as_policy(3)
    assert policy.next_delay(Failure("a", "died", Counter(died=1, timed_out=1), 2, 0.0, None)) is not None
    assert policy.next_delay(Failure("a", "died", Counter(died=2, timed_out=1), 3, 0.0, None)) is None


def test_a_number_grants_nothing_to_the_tasks_own_exceptions() -> None:
    assert as_policy(5).next_delay(failure("raised")) is None


def test_a_policy_is_taken_as_it_is() -> None:
    policy = RetryPolicy(errors=1)
    assert as_policy(policy) is policy


@pytest.mark.parametrize("retry", [0, -1])
def test_a_number_below_one_is_refused(retry: int) -> None:
    with pytest.raises(ValueError, match=rf"at least 1 .* got {retry}"):
        as_policy(retry)


@pytest.mark.parametrize("retry", [True, 2.0, "3", None, tenacity.stop_after_attempt(3)])
def test_what_is_neither_a_number_nor_a_policy_is_refused(retry: object) -> None:
    with pytest.raises(TypeError, match="RetryPolicy or a number"):
        as_policy(retry)


# -- bad arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CAUSES.values())
@pytest.mark.parametrize("budget", [-1, 1.0, True, "2", None])
def test_a_budget_that_is_no_count_is_refused_by_name_and_value(name: str, budget: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number") as caught:
        RetryPolicy(**{name: budget})
    assert repr(budget) in str(caught.value)


@pytest.mark.parametrize("name", ["retry_if", "wait", "stop"])
@pytest.mark.parametrize("strategy", [3, 0.5, "soon", ()])
def test_a_strategy_that_cannot_be_called_is_refused_by_name_and_value(name: str, strategy: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be one of tenacity's strategies") as caught:
        RetryPolicy(**{name: strategy})
    assert repr(strategy) in str(caught.value)


@pytest.mark.parametrize("total", [0, -2, 1.5, True, "3"])
def test_a_total_that_is_no_count_is_refused(total: object) -> None:
    with pytest.raises(ValueError, match="total must be a whole number"):
        RetryPolicy(total=total)


def test_a_policy_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        RetryPolicy().deaths = 9


# -- tenacity's strategies ---------------------------------------------------------------------------------------------


def test_wait_fixed_is_the_delay() -> None:
    policy = RetryPolicy(wait=tenacity.wait_fixed(7))
    assert policy.next_delay(failure()) == 7.0


def test_wait_exponential_sees_the_number_of_the_attempt() -> None:
    policy = RetryPolicy(9, wait=tenacity.wait_exponential(multiplier=1, max=10))
    assert [policy.next_delay(failure(count=n)) for n in range(1, 6)] == [1.0, 2.0, 4.0, 8.0, 10.0]


def test_waits_can_be_added() -> None:
    policy = RetryPolicy(9, wait=tenacity.wait_fixed(3) + tenacity.wait_incrementing(start=0, increment=1))
    assert [policy.next_delay(failure(count=n)) for n in (1, 2, 3)] == [3.0, 4.0, 5.0]


RANDOM_WAITS = [
    tenacity.wait_random(0, 10),
    tenacity.wait_random_exponential(max=60),
    tenacity.wait_fixed(1) + tenacity.wait_random(0, 2),
    tenacity.wait_exponential_jitter(),
]


@pytest.mark.parametrize("wait", RANDOM_WAITS, ids=lambda wait: type(wait).__name__)
def test_a_random_wait_leaves_the_global_generator_as_it_was(wait: object) -> None:
    random.seed(42)
    before = random.getstate()
    RetryPolicy(wait=wait).next_delay(failure())
    assert random.getstate() == before


@pytest.mark.parametrize("wait", RANDOM_WAITS, ids=lambda wait: type(wait).__name__)
def test_a_random_wait_depends_on_key_and_attempt_alone(wait: object) -> None:
    policy = RetryPolicy(9, wait=wait)
    random.seed(1)
    first = [policy.next_delay(failure(count=n, key=key)) for key in "ab" for n in (1, 2)]
    random.seed(2)
    assert [policy.next_delay(failure(count=n, key=key)) for key in "ab" for n in (1, 2)] == first
    assert len(set(first)) == len(first)


def test_a_strategy_that_raises_leaves_the_generator_as_it_was() -> None:
    class Raises(tenacity.wait_random):
        def __call__(self, retry_state: tenacity.RetryCallState) -> float:
            super().__call__(retry_state)
            raise ZeroDivisionError

    wait = Raises(0, 1)

    before = random.getstate()
    RetryPolicy(wait=wait).next_delay(failure())
    assert random.getstate() == before


def test_stop_after_attempt_counts_the_attempts_begun() -> None:
    policy = RetryPolicy(9, stop=tenacity.stop_after_attempt(3))
    assert [policy.next_delay(failure(count=n)) is None for n in (1, 2, 3)] == [False, False, True]


def test_stop_after_delay_counts_from_the_first_begin() -> None:
    policy = RetryPolicy(9, stop=tenacity.stop_after_delay(60))
    assert [policy.next_delay(failure(elapsed=e)) is None for e in (0.0, 59.9, 60.0)] == [False, False, True]


def test_stop_before_delay_counts_the_wait_to_come() -> None:
    policy = RetryPolicy(9, stop=tenacity.stop_before_delay(60), wait=tenacity.wait_fixed(10))
    assert [policy.next_delay(failure(elapsed=e)) is None for e in (0.0, 49.9, 50.0)] == [False, False, True]


def test_stops_can_be_combined() -> None:
    attempts, delay = tenacity.stop_after_attempt(3), tenacity.stop_after_delay(60)
    either, both = RetryPolicy(9, stop=attempts | delay), RetryPolicy(9, stop=attempts & delay)
    cases = [(1, 0.0), (3, 0.0), (1, 60.0), (3, 60.0)]
    assert [either.next_delay(failure(count=n, elapsed=e)) is None for n, e in cases] == [False, True, True, True]
    assert [both.next_delay(failure(count=n, elapsed=e)) is None for n, e in cases] == [False, False, False, True]


@pytest.mark.parametrize("policy", [RetryPolicy(9, stop=tenacity.stop_never), RetryPolicy(9)])
def test_without_a_stop_the_budgets_alone_decide(policy: RetryPolicy) -> None:
    assert policy.next_delay(failure(count=9, elapsed=1e9)) is not None
    assert policy.next_delay(failure(count=10)) is None


def test_a_budget_holds_whatever_the_strategies_say() -> None:
    policy = RetryPolicy(1, stop=tenacity.stop_never, wait=tenacity.wait_none(), retry_if=tenacity.retry_always)
    assert [policy.next_delay(failure(count=n)) for n in (1, 2)] == [0.0, None]


def test_retry_if_exception_type_chooses_among_the_tasks_own_exceptions() -> None:
    policy = RetryPolicy(errors=3, retry_if=tenacity.retry_if_exception_type(OSError))
    assert policy.next_delay(raised(ConnectionError())) is not None
    assert policy.next_delay(raised(ValueError())) is None


def test_predicates_can_be_combined() -> None:
    os_error, says_busy = tenacity.retry_if_exception_type(OSError), tenacity.retry_if_exception_message(match="busy")
    either, both = (
        RetryPolicy(errors=3, retry_if=os_error | says_busy),
        RetryPolicy(errors=3, retry_if=os_error & says_busy),
    )
    cases = [OSError("busy"), OSError("no"), ValueError("busy"), ValueError("no")]
    assert [either.next_delay(raised(e)) is not None for e in cases] == [True, True, True, False]
    assert [both.next_delay(raised(e)) is not None for e in cases] == [True, False, False, False]


def test_a_predicate_may_accept_what_is_no_exception() -> None:
    policy = RetryPolicy(errors=1, retry_if=tenacity.retry_if_exception_type(SystemExit))
    assert policy.next_delay(raised(SystemExit(3))) is not None


def test_retry_if_is_not_asked_about_deaths() -> None:
    assert RetryPolicy(retry_if=tenacity.retry_never).next_delay(failure("died")) is not None


def test_a_strategy_sees_a_death_as_a_failed_attempt() -> None:
    seen = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append((state.attempt_number, state.outcome.failed, state.seconds_since_start))
        return 0

    RetryPolicy(wait=wait).next_delay(failure(count=2, elapsed=4.5))
    assert seen == [(2, True, 4.5)]


# -- strategies that misbehave -----------------------------------------------------------------------------------------


def _raises(_: object) -> float:
    raise ZeroDivisionError("mine")


@pytest.mark.parametrize("name", ["wait", "stop", "retry_if"])
def test_a_strategy_that_raises_is_logged_and_the_failure_stands(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="resilient_exec.model.policies"):
        assert RetryPolicy(errors=3, **{name: _raises}).next_delay(failure("raised")) is None
    assert "task 'a' is not tried again" in caplog.text
    assert "ZeroDivisionError: mine" in caplog.text


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), "soon", None, object()])
def test_a_wait_that_is_no_finite_number_is_logged_and_the_failure_stands(
    delay: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that waits for ever would never settle."""
    assert RetryPolicy(wait=lambda _: delay).next_delay(failure()) is None
    assert "is not tried again" in caplog.text


def test_a_negative_wait_is_none() -> None:
    assert RetryPolicy(wait=lambda _: -3).next_delay(failure()) == 0.0


# -- the default wait --------------------------------------------------------------------------------------------------


keys = st.one_of(st.integers(), st.text(), st.tuples(st.text(), st.floats()))


@given(key=keys, counts=st.dictionaries(st.sampled_from(sorted(CAUSES)), st.integers(1, 10**6), min_size=1))
@settings(deadline=None, database=None)
def test_the_default_wait_doubles_from_a_tenth_of_a_second_to_thirty_less_up_to_half(key: object, counts: dict) -> None:
    failures = sum(counts.values())
    longest = min(0.1 * 2 ** min(failures - 1, 30), 30.0)
    delay = default_wait(Failure(key, "died", counts, failures, 0.0, None))
    assert longest / 2 <= delay <= longest
    assert delay == default_wait(Failure(key, "raised", counts, 99, 7.0, ValueError()))


@given(parts=st.lists(keys))
@settings(deadline=None, database=None)
def test_a_hashed_fraction_is_below_one_and_draws_from_nothing(parts: list) -> None:
    before = random.getstate()
    assert 0 <= hashed_fraction(*parts) < 1
    assert hashed_fraction(*parts) == hashed_fraction(*parts)
    assert random.getstate() == before


def test_the_default_wait_differs_among_tasks_that_fail_together() -> None:
    assert len({default_wait(failure(key=n)) for n in range(100)}) == 100


# -- one back-off for all causes ---------------------------------------------------------------------------------------

ALL = RetryPolicy(9, 9, 9, 9)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_cause_waits_as_long_as_any_other(cause: str, count: int) -> None:
    assert ALL.next_delay(failure(cause, count)) == default_wait(failure("died", count))


@pytest.mark.parametrize("cause", CAUSES)
def test_failures_of_other_causes_make_the_wait_longer(cause: str) -> None:
    counts = Counter(dict.fromkeys(CAUSES, 1))
    mixed = Failure("a", cause, counts, 4, 0.0, ValueError("no") if cause == "raised" else None)
    assert ALL.next_delay(mixed) == default_wait(failure(cause, 4))


@pytest.mark.parametrize("cause", CAUSES)
def test_the_strategies_for_wait_and_stop_are_asked_whatever_the_cause(cause: str) -> None:
    assert RetryPolicy(9, 9, 9, 9, wait=tenacity.wait_fixed(7)).next_delay(failure(cause)) == 7
    assert RetryPolicy(9, 9, 9, 9, stop=tenacity.stop_after_attempt(1)).next_delay(failure(cause)) is None


def test_other_threads_draw_on_from_the_global_generator_while_a_strategy_is_evaluated() -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(tenacity.wait_random):
        def __call__(self, retry_state: tenacity.RetryCallState) -> float:
            inside.set()
            go_on.wait()
            return super().__call__(retry_state)

    random.seed(42)
    expected = [random.random() for _ in range(3)]
    random.seed(42)
    thread = threading.Thread(target=RetryPolicy(wait=Slow(0, 10)).next_delay, args=(failure(),))
    drawn = [random.random()]
    thread.start()
    inside.wait()
    drawn.append(random.random())
    go_on.set()
    thread.join()
    drawn.append(random.random())
    assert drawn == expected
