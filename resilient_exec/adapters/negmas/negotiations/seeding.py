"""Seeds of negotiations: under ``options(seed=...)`` each is run from a random state that follows from what it is.

What it is: the scenario's name (a rotated one has its own), the negotiators' names, which negmas keeps unique, and the
number of the repetition.  So its scores do not depend on its place in the tournament, on what its process has drawn
before, nor on who runs it: a worker, the first or the third attempt, or this process (``njobs=-1``).  Behind a
negotiation in this process the random state is as before it, so that what ``cartesian_tournament`` itself draws (the
order of the negotiations, numbers of steps from a range) is the same, too, if the program seeds ``random``.

The clock and the order of sets of strings are dealt with as for worlds (:mod:`.worlds.seeding`).
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.worlds import seeding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["NegotiationSeeds", "current", "seeded"]


@dataclass
class NegotiationSeeds:
    """The seeds of one tournament.

    Attributes:
        seed: of the tournament.
        is_told: that this process's order of sets is not the workers'.
    """

    seed: int
    is_told: bool = False

    def number(self, info: Mapping[str, Any]) -> int:
        """The seed of the negotiation that ``run_negotiation`` gets these arguments for."""
        who = info.get("partner_names") or [_full_name(kind) for kind in info["partners"]]
        name = repr((str(info["s"].outcome_space.name), [str(one) for one in who], info.get("rep", 0)))
        return seeding.world_seed(self.seed, name, "negotiation")

    def task(self, fn: Callable[..., Any], info: Mapping[str, Any]) -> Callable[..., Any]:
        """What a worker is to call in place of ``fn``."""
        return functools.partial(seeding.run_apart, self.number(info), fn)

    def run_here(self, fn: Callable[..., Any], info: Mapping[str, Any]) -> Any:
        """The record of a negotiation in this process."""
        if not self.is_told:
            self.is_told = True
            seeding.warn_of_hash_order(self.hash_seed)
        return seeding.run_apart(self.number(info), fn, **info)

    @property
    def hash_seed(self) -> str:
        """The ``PYTHONHASHSEED`` of workers."""
        return seeding.hash_seed(self.seed)

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of workers has to have."""
        return {seeding.HASH_SEED: self.hash_seed}


def _full_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


_current: ContextVar[NegotiationSeeds | None] = ContextVar("resilient_exec_negotiation_seeds", default=None)


def current() -> NegotiationSeeds | None:
    """Those of the tournament that is run here and now; ``None``: it has none."""
    return _current.get()


@contextmanager
def seeded(seed: int | None, *, in_threads: bool = False) -> Iterator[None]:
    """Have the negotiations of a tournament seeded, if there is a seed.

    Args:
        seed: as the options have it.
        in_threads: negotiations are to run side by side in this process.

    Raises:
        ValueError: there is a seed, and negotiations in threads would draw from one random state.
        RuntimeError: negmas' clock cannot be calmed.
    """
    if seed is not None:
        if in_threads:
            raise ValueError(
                f'seed={seed} with executor="thread": negotiations in threads draw from one random state, in an order '
                'that nobody knows; use executor="process" (or njobs=-1), or no seed'
            )
        seeding.check()
    token = _current.set(None if seed is None else NegotiationSeeds(seed))
    try:
        yield
    finally:
        _current.reset(token)
