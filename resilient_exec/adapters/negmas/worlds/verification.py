"""World sets that are run a second time, to see whether a seed is all that their scores depend on.

A seed cannot reach everything: an agent may look at the clock, go by the order of a set of its objects, carry
something over from an earlier world of its process, or draw from a generator of its own.
``options(seed=7, verify=3)`` runs three of the world sets again when the tournament has ended, into a folder that is
removed, and compares; those that were the same are run once more by workers with another ``PYTHONHASHSEED``.  Where
scores differ, somebody in that world does not follow the seed, in the first case for the sake of the clock or of a
generator of its own, in the second one for the order of hashes.  Who cannot be told from one world, since every agent's
score depends on what the others do; a competitor that is in all such worlds and in no other is the one to look at.

The one-shot worlds of scml 0.7.7 go by the order of hashes themselves, whoever plays (docs/measurements.md has the
figures); so with versions before 0.8.3 the second comparison would accuse everybody, and is left out.
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

__all__ = ["compare", "is_told_by_hashes", "verify"]

_Again = tuple["WorldSet", float | None]
_OWN_WORLDS_ARE_STEADY = (0, 8, 3)  # of scml, under any hash seed; measured
_Scores = dict[tuple[str, str], list[float]]  # of agents, by name and type


def verify(
    negmas: Any,
    pool: Any,
    again: Sequence[_Again],
    folder: Path,
    deadline: float,
    *,
    elsewhere: Callable[[], ResilientPool],
) -> list[Verified]:
    """Run world sets again, and compare.

    Args:
        negmas: the module ``negmas.tournaments.tournaments``.
        pool: that has run them.
        again: world sets with their limits in seconds.
        folder: of the tournament.
        deadline: by ``time.perf_counter``; what is not done then is not compared.
        elsewhere: makes a pool whose workers have another hash seed.
    """
    found = _compared(negmas, pool, again, folder, deadline, under="same")
    steady = [index for index, one in enumerate(found) if not one.difference]
    if steady and is_told_by_hashes(checks.version("scml")) and time.perf_counter() < deadline:
        with elsewhere() as other:
            once_more = _compared(negmas, other, [again[index] for index in steady], folder, deadline, under="another")
        for index, one in zip(steady, once_more, strict=True):
            found[index] = one
    return found


def is_told_by_hashes(scml: str) -> bool:
    """Whether a difference under another hash seed is an agent's doing, and not that version's own."""
    return tuple(int(part) for part in re.findall(r"\d+", scml)[:3]) >= _OWN_WORLDS_ARE_STEADY


def _compared(
    negmas: Any, pool: Any, again: Sequence[_Again], folder: Path, deadline: float, *, under: Literal["same", "another"]
) -> list[Verified]:
    futures: list[ResilientFuture[Any]] = []
    with tempfile.TemporaryDirectory(prefix="resilient-verify-", ignore_cleanup_errors=True) as scratch:
        try:
            for world_set, limit in again:
                moved = _moved(world_set.worlds, str(folder), scratch)
                how: dict[str, Any] = {"tournament": "verify", "seed": None, "verbose": False}
                future = pool.options(timeout=limit, key=f"{world_set.run_id} again").submit(
                    worldset.run_world_set, moved, max_attempts=sys.maxsize, **how
                )
                futures.append(future)
            found = []
            for (world_set, _), future in zip(again, futures, strict=True):
                difference = _difference(negmas, world_set, future, deadline)
                found.append(Verified(world_set.run_id, world_set.competitors, difference, under if difference else ""))
            return found
        finally:
            for future in futures:
                future.kill()


def _moved(place: Any, old: str, new: str) -> Any:
    """A copy of a configuration in which all paths below ``old`` are below ``new``; names stay, and so do seeds."""
    if isinstance(place, dict):
        return {key: _moved(value, old, new) for key, value in place.items()}
    if isinstance(place, list | tuple):
        return type(place)(_moved(value, old, new) for value in place)
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
    """The agents that had other scores, in words."""
    changed = []
    for key in sorted(before.keys() | after.keys()):
        first, second = before.get(key, []), after.get(key, [])
        if repr(first) != repr(second):  # a NaN is the same as another one
            name, kind = key
            changed.append(f"{name} ({kind.rpartition(':')[2]}) {_text(first)}, then {_text(second)}")
    return "; ".join(changed)


def _text(scores: list[float]) -> str:
    return ", ".join(f"{score:.6g}" for score in scores) or "no score"
