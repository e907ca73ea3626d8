"""Runs some world sets a second time, to verify that their scores depend on the seed alone.

A seed does not determine everything: an agent may read the clock, depend on the order of a set of its objects, keep
state from an earlier world of its process, or draw from a random generator of its own.

``options(seed=7, verify=3)`` runs three of the world sets again when the tournament has ended, in a folder that is
removed afterwards, and compares the scores.  World sets with equal scores are run once more, by workers with another
``PYTHONHASHSEED``.  If scores differ in the first comparison, an agent in that world depends on the clock or on a
generator of its own; if they differ only in the second one, on the order of hashes.  One world does not show which
agent it is, since every agent's score depends on what the others do.  A competitor that is in all such worlds, and in
no other one, is the one to examine.

The one-shot worlds of scml 0.7.7 depend on the order of hashes themselves, with any agents (the figures are in
docs/measurements.md).  So with scml before 0.8.3 the second comparison is left out: every world set would differ.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Literal

from resilient_exec.adapters.negmas import checks
from resilient_exec.adapters.negmas.report.task_report import Verified
from resilient_exec.adapters.negmas.worlds import task as worldset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from resilient_exec import ResilientFuture
    from resilient_exec.adapters.negmas.worlds.plan import WorldSet
    from resilient_exec.pool.pool import ResilientPool

__all__ = ["compare", "is_caused_by_agents", "verify"]

_LimitedSet = tuple["WorldSet", float | None]
_FIRST_STEADY_SCML = (0, 8, 3)  # the first scml of which the worlds do not depend on the hash seed; measured
_Scores = dict[tuple[str, str], list[float]]  # of agents, by name and type


def verify(
    negmas: Any,
    pool: Any,
    again: Sequence[_LimitedSet],
    folder: Path,
    deadline: float,
    *,
    make_other_pool: Callable[[], ResilientPool],
) -> list[Verified]:
    """Run world sets again, and compare their scores.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        pool: that has run them.
        again: world sets with their limits in seconds.
        folder: of the tournament.
        deadline: by ``time.perf_counter``; world sets that are not finished then are not compared.
        make_other_pool: makes a pool whose workers have another hash seed.

    Returns:
        The result for each world set, in order.
    """
    found = _run_again(negmas, pool, again, folder, deadline, under="same")
    steady = [index for index, one in enumerate(found) if not one.difference]
    if steady and is_caused_by_agents(checks.version("scml")) and time.perf_counter() < deadline:
        with make_other_pool() as other:
            once_more = _run_again(negmas, other, [again[index] for index in steady], folder, deadline, under="another")
        for index, one in zip(steady, once_more, strict=True):
            found[index] = one
    return found


def is_caused_by_agents(scml: str) -> bool:
    """Whether a difference under another hash seed is caused by an agent, and not by that version of scml itself."""
    return tuple(int(part) for part in re.findall(r"\d+", scml)[:3]) >= _FIRST_STEADY_SCML


def _run_again(
    negmas: Any,
    pool: Any,
    again: Sequence[_LimitedSet],
    folder: Path,
    deadline: float,
    *,
    under: Literal["same", "another"],
) -> list[Verified]:
    futures: list[ResilientFuture[Any]] = []
    with tempfile.TemporaryDirectory(prefix="resilient-verify-", ignore_cleanup_errors=True) as scratch:
        try:  # no loop in here: on Python 3.14 a Ctrl-C where a loop jumps back skips the `finally`
            _submit_again(pool, again, folder, scratch, futures)
            return _compared(negmas, again, futures, deadline, under)
        finally:
            for future in futures:
                future.kill()


def _submit_again(
    pool: Any, again: Sequence[_LimitedSet], folder: Path, scratch: str, futures: list[ResilientFuture[Any]]
) -> None:
    for world_set, limit in again:
        moved = _with_paths_moved(world_set.worlds, str(folder), scratch)
        how: dict[str, Any] = {"tournament": "verify", "seed": None, "verbose": False}
        how["prints"] = worldset.Prints.NOWHERE  # it has printed it all before
        future = pool.options(timeout=limit, key=f"{world_set.run_id} again").submit(
            worldset.run_world_set, moved, max_attempts=sys.maxsize, **how
        )
        futures.append(future)


def _compared(
    negmas: Any,
    again: Sequence[_LimitedSet],
    futures: Sequence[ResilientFuture[Any]],
    deadline: float,
    under: Literal["same", "another"],
) -> list[Verified]:
    found = []
    for (world_set, _), future in zip(again, futures, strict=True):
        difference = _difference(negmas, world_set, future, deadline)
        found.append(Verified(world_set.folder.name, world_set.competitors, difference, under if difference else ""))
    return found


def _with_paths_moved(place: Any, old: str, new: str) -> Any:
    """A copy of a configuration with the paths below ``old`` moved to ``new``; names, and so seeds, are the same."""
    if isinstance(place, dict):
        return {key: _with_paths_moved(value, old, new) for key, value in place.items()}
    if isinstance(place, list | tuple):
        return type(place)(_with_paths_moved(value, old, new) for value in place)
    if isinstance(place, str) and place.startswith(old):
        return new + place[len(old) :]
    return place


def _difference(negmas: Any, world_set: WorldSet, future: ResilientFuture[Any], deadline: float) -> str:
    try:
        left = max(0.0, deadline - time.perf_counter())
        error = future.exception(timeout=None if math.isinf(left) else left)
    except TimeoutError:
        return "not compared: total_timeout was over"
    if error is not None:
        return f"the second time {type(error).__name__}: {str(error).splitlines()[0]}"
    result = future.result()
    if isinstance(result, worldset.Refused):
        return f"not compared: {result.reason}"
    records = negmas.load(world_set.folder / negmas.RESULTS_FILE)["scores"]
    before = _scores((r["agent_name"], r["agent_type"], r["score"]) for r in records)
    score = result.result[2]
    return compare(before, _scores(zip(score.names, score.types, score.scores, strict=True)))


def _scores(records: Any) -> _Scores:
    found: _Scores = {}
    for name, kind, score in records:
        found.setdefault((str(name), str(kind)), []).append(float(score))
    return found


def compare(before: Mapping[tuple[str, str], list[float]], after: Mapping[tuple[str, str], list[float]]) -> str:
    """The agents of which the scores differ, with both scores, as a text; ``""``: none.

    Args:
        before: lists of scores, by the agent's name and type.
        after: the same, of the second run.
    """
    changed = []
    for key in sorted(before.keys() | after.keys()):
        first, second = before.get(key, []), after.get(key, [])
        if repr(first) != repr(second):  # by repr, so that two NaN are equal
            name, kind = key
            changed.append(f"{name} ({kind.rpartition(':')[2]}) {_text(first)}, then {_text(second)}")
    return "; ".join(changed)


def _text(scores: list[float]) -> str:
    return ", ".join(f"{score:.6g}" for score in scores) or "no score"
