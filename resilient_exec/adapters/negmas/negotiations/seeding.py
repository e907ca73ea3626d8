"""Seeds of negotiations: under ``options(seed=...)`` each one begins with a random state computed from its identity.

Its identity is the scenario's name (a rotated one has its own), the negotiators' names, which negmas keeps unique, and
the number of the repetition.  So its scores do not depend on its place in the tournament, on earlier random draws in
its process, or on whether it is run by a worker (in whichever attempt) or in this process (``njobs=-1``).

After a negotiation in this process the former random state is restored.  So what ``cartesian_tournament`` itself draws
(the order of the negotiations, numbers of steps from a range) is reproducible, too, if the program seeds ``random``.

The clock and the order of sets of strings are handled as for worlds (:mod:`.worlds.seeding`).
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
        is_warned: whether the warning has been given that this process orders sets differently than the workers.
    """

    seed: int
    is_warned: bool = False

    def number(self, info: Mapping[str, Any]) -> int:
        """The seed of a negotiation, from the arguments of ``run_negotiation``."""
        who = info.get("partner_names") or [_full_name(kind) for kind in info["partners"]]
        name = repr((str(info["s"].outcome_space.name), [str(one) for one in who], info.get("rep", 0)))
        return seeding.world_seed(self.seed, name, "negotiation")

    def task(self, fn: Callable[..., Any], info: Mapping[str, Any]) -> Callable[..., Any]:
        """The function that a worker calls in place of ``fn``: it seeds first."""
        return functools.partial(seeding.run_with_own_state, self.number(info), fn)

    def run_here(self, fn: Callable[..., Any], info: Mapping[str, Any]) -> Any:
        """Run a negotiation in this process with its seed; returns its record."""
        if not self.is_warned:
            self.is_warned = True
            seeding.warn_of_hash_order(self.hash_seed)
        return seeding.run_with_own_state(self.number(info), fn, **info)

    @property
    def hash_seed(self) -> str:
        """The ``PYTHONHASHSEED`` of workers."""
        return seeding.hash_seed(self.seed)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the workers' environment."""
        return seeding.worker_environment(self.hash_seed)


def _full_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


_current: ContextVar[NegotiationSeeds | None] = ContextVar("resilient_exec_negotiation_seeds", default=None)


def current() -> NegotiationSeeds | None:
    """The seeds of the tournament that this thread runs; ``None``: it has none."""
    return _current.get()


@contextmanager
def seeded(seed: int | None, *, in_threads: bool = False) -> Iterator[None]:
    """Seed the negotiations of tournaments that are run in a ``with`` block, if there is a seed.

    Args:
        seed: that of the options.
        in_threads: whether negotiations are to run in threads of this process.

    Raises:
        ValueError: there is a seed, and negotiations in threads would draw from one random state.
        RuntimeError: this negmas draws random numbers by the clock in a way that cannot be suppressed.
    """
    if seed is not None:
        if in_threads:
            raise ValueError(
                f'seed={seed} with executor="thread": negotiations in threads draw from one random state, in an order '
                'that differs from run to run; use executor="process" (or njobs=-1), or no seed'
            )
        seeding.check_clock()
    token = _current.set(None if seed is None else NegotiationSeeds(seed))
    try:
        yield
    finally:
        _current.reset(token)
