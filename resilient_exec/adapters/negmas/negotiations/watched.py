"""Notes whose code a negotiation runs, in the worker, and finds who is to blame for a failed one, in the parent."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame import entries
from resilient_exec.adapters.negmas.blame.stage import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from resilient_exec import ResilientFuture
    from resilient_exec.adapters.negmas.blame.conduct import Conduct
    from resilient_exec.adapters.negmas.blame.notes import OnStage
    from resilient_exec.adapters.negmas.blame.stage import Measured

__all__ = ["Negotiation", "Record", "failed_attempts", "full_names", "run_watched", "watched"]


@dataclass(frozen=True)
class Record:
    """What a worker returns: the negotiation's own record, and what was measured of each negotiator."""

    record: Any
    measured: list[Measured] = field(default_factory=list)


@dataclass(frozen=True)
class Negotiation:
    """What :class:`~.blame.conduct.Conduct` has to know of a negotiation: it stands for a world set.

    Attributes:
        folder: its run id, as a path.
        competitors: full names of the types of its negotiators.
        worlds: a configuration that has these as the types of its agents.
    """

    folder: Path
    competitors: tuple[str, ...]

    @property
    def worlds(self) -> list[dict[str, Any]]:
        """One world in negmas' form, with the negotiators' types."""
        return [{"agent_types": list(self.competitors)}]


def full_names(kinds: Iterable[Any]) -> tuple[str, ...]:
    """The full name of each type; what is a name already is kept."""
    names = (f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind) for kind in kinds)
    return tuple(dict.fromkeys(names))


def watched(fn: Callable[..., Any], info: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that a worker calls in place of ``fn``; ``fn`` itself where nothing is known of negotiators.

    Args:
        fn: runs the negotiation.
        info: the arguments of ``run_negotiation``.
    """
    kinds = tuple(kind for kind in info.get("partners") or () if isinstance(kind, type))
    return functools.partial(run_watched, fn, kinds) if kinds else fn


def run_watched(fn: Callable[..., Any], kinds: tuple[type, ...], /, *args: Any, **kwargs: Any) -> Record:
    """For use in a worker: run a negotiation between these types, and note whose code is running."""
    watch = Watch({})
    with contextlib.ExitStack() as stack:
        stack.callback(watch.close)
        names = {kind: full_names([kind])[0] for kind in kinds}
        watch.add_names(names)
        entries.hook(watch, names, stack)
        watch.begin_step(0)  # a negotiation is one step: times before the first one are not kept
        try:
            record = fn(*args, **kwargs)
        except BaseException as error:
            watch.note_raiser(error)
            raise
        return Record(record, watch.measured())


def failed_attempts(conduct: Conduct, one: Negotiation, future: ResilientFuture[Any]) -> tuple[OnStage, ...]:
    """Who was on stage in the failed attempts of a negotiation; each attempt is recorded once."""
    stage = conduct.record_failed_attempts(one, future.key, future.dossier.attempts)  # type: ignore[arg-type]
    return tuple(replace(who, step=None) for who in stage)  # a negotiation has no steps of a world
