"""The options of a tournament: ``options(...)`` in code overrides the environment, which overrides the defaults.

========================  ===================================  =============================================
option                    environment                          default
========================  ===================================  =============================================
``max_workers``           ``RESILIENT_EXEC_WORKERS``           the fraction in ``"resilient:0.5"``, or all CPUs
``timeout``               ``RESILIENT_EXEC_TIMEOUT``           from the ``time_limit`` that worlds declare
``start_timeout``         ``RESILIENT_EXEC_START_TIMEOUT``     120 s
``memory_limit``          ``RESILIENT_EXEC_MEMORY_LIMIT``      none; ``"2GiB"``: of a worker and its descendants
``retry``                 ``RESILIENT_EXEC_RETRIES``           deaths twice, memory once, timeouts not
``max_tasks_per_worker``  ``RESILIENT_EXEC_TASKS_PER_WORKER``  as ``fresh_process`` has it
``fresh_process``         ``RESILIENT_EXEC_FRESH_PROCESS``     each world in a process of its own, if that is fast
``preload``               ``RESILIENT_EXEC_PRELOAD``           yes: workers are forked with negmas and scml imported
``marker_wait``           ``RESILIENT_EXEC_MARKER_WAIT``       30 s
``output``                ``RESILIENT_EXEC_OUTPUT``            "forward" what worlds print; "file": into a file each
``output_limit``          ``RESILIENT_EXEC_OUTPUT_LIMIT``      16 MiB of what each world prints; 0: no limit
``seed``                  ``RESILIENT_EXEC_SEED``              none: random states are not set (:mod:`.worlds.seeding`)
``verify``                ``RESILIENT_EXEC_VERIFY``            0 world sets are run twice (:mod:`.worlds.verification`)
``step_timeout``          ``RESILIENT_EXEC_STEP_TIMEOUT``      none; steps of an agent that took longer are counted
``disqualify_after``      ``RESILIENT_EXEC_DISQUALIFY_AFTER``  never; the number of worlds spoiled by a competitor
``take_over``             ``RESILIENT_EXEC_TAKE_OVER``         no: a folder that another host claims is refused
``retry_failed``          ``RESILIENT_EXEC_RETRY_FAILED``      yes: a resumed tournament runs what had failed again
``observers``             (none)                               none
========================  ===================================  =============================================

``options(retry=...)`` takes what the pool takes: a :class:`~resilient_exec.RetryPolicy`, or a number of attempts
in all.  ``RESILIENT_EXEC_RETRIES`` is the number of *further* attempts after a death.  A world that timed out is not
tried again, since it would most likely time out again.  ``timeout`` may be ``None`` (in the environment: ``none``),
which means no limit at all.  A given number of workers overrides a fraction.

With ``preload`` each worker is forked from a process that has imported negmas, scml and the competitors' modules, and
each world gets a fresh process.  If one of these modules cannot be preloaded (it starts threads, or fails), it would
have to be imported for each world, so workers are reused then.  ``fresh_process=True`` and ``False`` override this, and
``max_tasks_per_worker`` overrides both.

With ``output="file"`` what a world prints is written to ``resilient/output.txt`` in the folder of its world set.  If it
is more than ``output_limit``, the first half of the limit and the end are kept.  ``"both"`` also copies it to the
program's stdout, without escape sequences.

A variable with a name similar to one of these (``RESILIENT_EXEC_TIMOUT``), or made of an option's name
(``RESILIENT_EXEC_MAX_WORKERS``), is refused like a wrong value, since otherwise a misspelt limit would be ignored.

Wrong values raise an error where they are given: for ``options``, when it is called (``ValueError`` or ``TypeError``);
for the environment, when the adapter is imported and again before the first world
(:class:`~resilient_exec.pool.options.WrongSetting`, which is a ``ValueError``; the commands print it and exit with 2).
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

from resilient_exec.adapters.worker_output import DEFAULT_LIMIT
from resilient_exec.model.policies import RetryPolicy, as_policy
from resilient_exec.pool.durations import seconds_in
from resilient_exec.pool.options import LONGEST, WrongSetting, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from resilient_exec.model.events import Event

__all__ = ["UNSET", "Settings", "current", "options"]


class _Unset(Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset.UNSET
"""No value was given; ``None`` means "no limit"."""


@dataclass(frozen=True)
class Settings:
    """The options in force, with checked values; see the module's docstring for their meaning."""

    max_workers: int | None = None
    timeout: float | _Unset | None = UNSET
    start_timeout: float = 120.0
    memory_limit: int | None = None
    retry: RetryPolicy = RetryPolicy(deaths=2, timeouts=0)  # noqa: RUF009  frozen
    max_tasks_per_worker: int | None = None
    fresh_process: bool | None = None
    preload: bool = True
    marker_wait: float = 30.0
    output: Literal["forward", "file", "both"] = "forward"
    output_limit: int = DEFAULT_LIMIT
    seed: int | None = None
    verify: int = 0
    step_timeout: float | None = None
    disqualify_after: int | None = None
    take_over: bool = False
    retry_failed: bool = True
    observers: tuple[Callable[..., object], ...] = ()


def _seconds(value: Any) -> float:
    number = _length_of_time(value)
    if not 0 < number < LONGEST:
        raise ValueError('must be a finite number of seconds, more than 0, or a text such as "5m"')
    return number


def _length_of_time(value: Any) -> float:
    if isinstance(value, str):
        with suppress(ValueError):
            value = seconds_in(value)
    return _number(value)


def _seconds_or_none(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in {"none", "inf"}):
        return None
    try:
        return _seconds(value)
    except ValueError:
        raise ValueError(
            'must be a number of seconds, more than 0, a text such as "5m", or None for no limit'
        ) from None


def _memory(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().lower() == "none":
        return None
    try:
        return size("it", value)
    except (TypeError, ValueError):
        raise ValueError(
            'must be a number of bytes or a text such as "2GiB", at least 1 MiB and at most 1024 TiB, or None'
        ) from None


def _seconds_or_zero(value: Any) -> float:
    number = _number(value)
    if not 0 <= number < LONGEST:
        raise ValueError("must be a finite number of seconds, 0 or more")
    return number


def _whole(value: Any, least: int, of_what: str = "") -> int:
    number = _number(value)
    if number < least or not number.is_integer():
        raise ValueError(f"must be a whole number{of_what}, {least} or more")
    return int(number)


def _count(value: Any) -> int:
    return _whole(value, 1)


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _count(value)


def _yes_or_no(value: Any) -> bool:
    words = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool):
        raise ValueError("must be True or False (in the environment: 1 or 0)")  # noqa: TRY004  the caller adds the name
    return value


def _yes_no_or_none(value: Any) -> bool | None:
    return None if value is None else _yes_or_no(value)


def _seed(value: Any) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    try:
        seed = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else -1
    except ValueError:
        seed = -1
    if seed < 0:
        raise ValueError("must be a whole number, 0 or more, or None")
    return seed


def _count_or_zero(value: Any) -> int:
    return _whole(value, 0)


def _output(value: Any) -> str:
    if not isinstance(value, str) or value not in {"forward", "file", "both"}:
        raise ValueError('must be "forward", "file" or "both"')
    return value


def _output_limit(value: Any) -> int:
    if isinstance(value, bool) or str(value).strip() == "0":
        if not isinstance(value, bool):
            return 0
        raise ValueError("must be a number of bytes")
    try:  # a number of bytes may be a small one here, unlike a limit of memory
        return _whole(value, 0)
    except ValueError:
        pass
    try:
        limit = size("it", value) if isinstance(value, str) else None
    except ValueError:
        limit = None
    if limit is None:
        raise ValueError('must be a number of bytes, 0 or more, or a text such as "16MiB"')
    return limit


def _retries(value: Any) -> RetryPolicy:
    further = _whole(value, 0, " of further attempts after a death")
    return RetryPolicy(deaths=further, timeouts=0, memory=min(1, further))


def _observers(value: Any) -> tuple[Callable[..., object], ...]:
    observers = tuple(value) if isinstance(value, list | tuple) else None
    if observers is None or not all(callable(observer) for observer in observers):
        raise ValueError("must be a list of callables, each taking one Event")
    return observers


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")  # noqa: TRY004  the caller adds name and value
    try:
        number = float(value)
    except ValueError:
        raise ValueError("must be a number") from None
    except OverflowError:  # a whole number of more than 300 digits
        number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    if math.isnan(number):
        raise ValueError("must be a number")
    return number


_RULES: dict[str, Callable[[Any], Any]] = {
    "max_workers": _count_or_none,
    "timeout": _seconds_or_none,
    "start_timeout": _seconds,
    "memory_limit": _memory,
    "retry": as_policy,
    "max_tasks_per_worker": _count_or_none,
    "fresh_process": _yes_no_or_none,
    "preload": _yes_or_no,
    "marker_wait": _seconds_or_zero,
    "output": _output,
    "output_limit": _output_limit,
    "seed": _seed,
    "verify": _count_or_zero,
    "step_timeout": _seconds_or_none,
    "disqualify_after": _count_or_none,
    "take_over": _yes_or_no,
    "retry_failed": _yes_or_no,
    "observers": _observers,
}

_ENVIRONMENT: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    # the option, its rule, and an example of a right value
    "RESILIENT_EXEC_WORKERS": ("max_workers", _count, "4"),
    "RESILIENT_EXEC_TIMEOUT": ("timeout", _seconds_or_none, "300"),
    "RESILIENT_EXEC_START_TIMEOUT": ("start_timeout", _seconds, "120"),
    "RESILIENT_EXEC_MEMORY_LIMIT": ("memory_limit", _memory, "2GiB"),
    "RESILIENT_EXEC_RETRIES": ("retry", _retries, "2"),
    "RESILIENT_EXEC_TASKS_PER_WORKER": ("max_tasks_per_worker", _count, "10"),
    "RESILIENT_EXEC_FRESH_PROCESS": ("fresh_process", _yes_or_no, "1"),
    "RESILIENT_EXEC_PRELOAD": ("preload", _yes_or_no, "0"),
    "RESILIENT_EXEC_MARKER_WAIT": ("marker_wait", _seconds_or_zero, "30"),
    "RESILIENT_EXEC_OUTPUT": ("output", _output, "file"),
    "RESILIENT_EXEC_OUTPUT_LIMIT": ("output_limit", _output_limit, "16MiB"),
    "RESILIENT_EXEC_SEED": ("seed", _seed, "7"),
    "RESILIENT_EXEC_VERIFY": ("verify", _count_or_zero, "3"),
    "RESILIENT_EXEC_STEP_TIMEOUT": ("step_timeout", _seconds_or_none, "2"),
    "RESILIENT_EXEC_DISQUALIFY_AFTER": ("disqualify_after", _count, "3"),
    "RESILIENT_EXEC_TAKE_OVER": ("take_over", _yes_or_no, "1"),
    "RESILIENT_EXEC_RETRY_FAILED": ("retry_failed", _yes_or_no, "0"),
}

_PREFIX = "RESILIENT_EXEC_"
_BY_OPTION = {f"{_PREFIX}{option.upper()}": variable for variable, (option, _, _) in _ENVIRONMENT.items()}
_MIN_SIMILARITY = 0.75  # difflib's ratio of two names without the prefix
_MAX_SHOWN = 60  # characters of a wrong value in an error
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_given: ContextVar[Mapping[str, Any]] = ContextVar("resilient_exec_negmas_options", default=_NOTHING)


def _checked(rule: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return rule(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: {error}") from None


def _refuse_misspelt(variables: Mapping[str, str]) -> None:
    known = [name.removeprefix(_PREFIX) for name in _ENVIRONMENT]
    for name in sorted(variables):
        if not name.startswith(_PREFIX) or name in _ENVIRONMENT or not variables[name]:
            continue
        close = [f"{_PREFIX}{one}" for one in get_close_matches(name.removeprefix(_PREFIX), known, 1, _MIN_SIMILARITY)]
        meant = _BY_OPTION.get(name) or next(iter(close), None)
        if meant is not None:
            raise WrongSetting(f"{name} is not read by anything; unset it, or set {meant} if that is meant")


def from_environment(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The options that the environment sets; an empty variable counts as not set.

    Raises:
        WrongSetting: the message names the variable, its value, the rule and the remedy, in one line.
    """
    variables = os.environ if environment is None else environment
    _refuse_misspelt(variables)
    found = {}
    for variable, (option, rule, example) in _ENVIRONMENT.items():
        value = variables.get(variable)
        if not value:
            continue
        try:
            found[option] = rule(value)
        except ValueError as error:
            shown = repr(value) if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]!r}... ({len(value)} characters)"
            remedy = f"unset it, or set another value, such as {variable}={example}"
            raise WrongSetting(f"{variable}={shown}: {error}; {remedy}") from None
    return found


def current() -> Settings:
    """The options in force in this thread.

    Raises:
        WrongSetting: the environment holds a wrong value.
    """
    return replace(Settings(), **{**from_environment(), **_given.get()})


class Options(TypedDict, total=False):
    """The keyword arguments of :func:`options`."""

    max_workers: int | None
    timeout: float | str | None
    start_timeout: float | str
    memory_limit: int | str | None
    retry: RetryPolicy | int
    max_tasks_per_worker: int | None
    fresh_process: bool | None
    preload: bool
    marker_wait: float
    output: Literal["forward", "file", "both"]
    output_limit: int | str
    seed: int | None
    verify: int
    step_timeout: float | str | None
    disqualify_after: int | None
    take_over: bool
    retry_failed: bool
    observers: Sequence[Callable[[Event], object]]


def options(**given: Unpack[Options]) -> AbstractContextManager[Settings]:
    """Set options for the tournaments that are run inside a ``with`` block, in this thread.

    ::

        with options(timeout=300, retry=3):
            anac2024_std(..., parallelism="resilient")

    Blocks may be nested: the inner one overrides the outer one, and both override the environment.  See the module's
    docstring for the names and their meaning.

    Raises:
        TypeError: there is no option of that name.
        ValueError: a value is wrong; the message names the option, its value and the rule.
    """
    known = [field.name for field in fields(Settings)]
    for name in given:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; there are: {', '.join(known)}")
    return _override({name: _checked(_RULES[name], name, value) for name, value in given.items()})


@contextmanager
def _override(checked: Mapping[str, Any]) -> Iterator[Settings]:
    token = _given.set({**_given.get(), **checked})
    try:
        yield current()
    finally:
        _given.reset(token)
