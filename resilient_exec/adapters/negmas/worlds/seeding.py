"""Scores that follow from a seed and the world's name, whoever runs the world, when, and for which time.

Under ``options(seed=7)`` the world generator is wrapped in :class:`Seeded`, which seeds the global generators of
:mod:`random` and numpy (and what is registered with negmas' ``register_seeder``) from the seed and the world's name,
before the world is generated and again behind that.  So it does not matter what the process has drawn before.  The
moment of creation, which negmas writes into the names of worlds, does not count: a tournament that is created again
from the same random state is the same tournament.

Two more things would tell one run from another:

* *The clock.*  ``Mechanism.step`` draws a number at each step, and one more whenever a second has passed, for the sake
  of ``pend_per_second``.  Where that is 0 the number decides nothing, and moves all that are drawn later.  It is not
  drawn then.  (Where ``pend_per_second`` is used the clock decides, as it is meant to.)
* *The order of sets of strings*, which SCML's worlds depend on.  Workers get one ``PYTHONHASHSEED``: this process's, if
  its environment has one, else one that follows from the seed.  A serial run is this process, whose order cannot be
  changed any more; so a warning says which number to set.

What is not covered: generators that an agent makes for itself, agents that look at the clock, and those that carry
something over from one world to the next in the same process.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import sys
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["HASH_SEED", "Seeded", "hash_seed", "reseed", "run_apart", "serially", "warn_of_hash_order", "world_seed"]

HASH_SEED = "PYTHONHASHSEED"
_CREATED = re.compile(r"\d{8}H\d{12}")  # as negmas' unique_name writes it
_TRIED = "_Mechanism__last_second_tried"


def world_seed(seed: int, name: str, purpose: str = "") -> int:
    """The seed of a world: of 64 bits, from the seed of the tournament and the world's name."""
    text = f"{seed}:{purpose}:{_CREATED.sub('', name)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def hash_seed(seed: int, environment: Mapping[str, str] | None = None) -> str:
    """The ``PYTHONHASHSEED`` of workers: this process's, or one that follows from the seed."""
    return _own_hash_seed(environment) or str(seed % 2**32)


def _own_hash_seed(environment: Mapping[str, str] | None = None) -> str:
    """The one that this process was started with; ``""``: none."""
    if sys.flags.ignore_environment:
        return ""
    given = (os.environ if environment is None else environment).get(HASH_SEED, "")
    return given if given.isdecimal() else ""  # it may be "random"


@dataclass(frozen=True)
class Seeded:
    """A world generator, with everything seeded around it; it travels to workers.

    Attributes:
        generator: negmas' or the user's own.
        seed: of the tournament.
        hash_seed: the ``PYTHONHASHSEED`` that workers are to have.
    """

    generator: Callable[..., Any]
    seed: int
    hash_seed: str

    def __call__(self, **config: Any) -> Any:
        """The world of this configuration, and the random state that its run is to begin with."""
        name = config["world_params"]["name"]  # now: generators take the parameters apart
        _calm_the_clock()
        reseed(world_seed(self.seed, name, "generate"))
        world = self.generator(**config)
        reseed(world_seed(self.seed, name, "run"))
        return world

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of workers has to have."""
        return {HASH_SEED: self.hash_seed}

    @property
    def other_environment(self) -> dict[str, str]:
        """The same with another hash seed."""
        return {HASH_SEED: str((int(self.hash_seed) + 1) % 2**32)}


def reseed(number: int) -> None:
    """Seed every global generator that negmas draws from."""
    try:
        from negmas.helpers.rand import apply_seed  # since 0.16: it knows of others' generators, too
    except ImportError:
        import numpy as np

        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002  it is the one that negmas draws from
    else:
        apply_seed(number)


# -- the clock


class _NoSecondPasses:
    """In place of ``Mechanism.__last_second_tried``, which the elapsed seconds are compared with."""

    def __get__(self, mechanism: Any, owner: type | None = None) -> Any:
        if mechanism is None:
            return self
        nmi = getattr(mechanism, "_internal_nmi", None) or mechanism.nmi
        return vars(mechanism)[_TRIED] if nmi.pend_per_second > 0 else math.inf

    def __set__(self, mechanism: Any, second: int) -> None:
        vars(mechanism)[_TRIED] = second  # where it would be without us, and is looked for again when we are gone


def _calm_the_clock() -> None:
    mechanism = _mechanism()
    if _TRIED not in vars(mechanism):
        setattr(mechanism, _TRIED, _NoSecondPasses())


def _mechanism() -> Any:
    from negmas.mechanisms import Mechanism  # seconds; and a worker imports this module before it knows its task

    return Mechanism


def check() -> None:
    """Refuse a negmas whose clock cannot be calmed.

    Raises:
        RuntimeError: what is missing.
    """
    code = getattr(getattr(_mechanism(), "step", None), "__code__", None)
    if code is None or _TRIED not in code.co_names:
        raise RuntimeError(
            f"options(seed=...) does not fit this version of negmas: negmas.mechanisms.Mechanism.step has no {_TRIED}; "
            "run without a seed, or with negmas 0.11 to 0.16"
        )


# -- in this process


class _Serial:
    lock = threading.Lock()
    running = 0


@contextmanager
def serially(seeded: Seeded) -> Iterator[None]:
    """For a serial run in this process: the random state and the clock are put back at its end."""
    warn_of_hash_order(seeded.hash_seed)
    with _undisturbed():
        yield


def run_apart(seed: int, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a negotiation from a random state of its own, and put random state and clock back behind it."""
    with _undisturbed():
        _calm_the_clock()
        reseed(seed)
        return fn(*args, **kwargs)


@contextmanager
def _undisturbed() -> Iterator[None]:
    import numpy as np

    state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    with _Serial.lock:
        _Serial.running += 1
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)  # noqa: NPY002
        with _Serial.lock:
            _Serial.running -= 1
            if not _Serial.running and _TRIED in vars(_mechanism()):
                delattr(_mechanism(), _TRIED)


def warn_of_hash_order(hash_seed: str) -> None:
    """Say what to set, if this process's order of sets of strings is not that of workers with this seed."""
    if _own_hash_seed() == hash_seed:
        return
    warnings.warn(
        f"a serial run depends on this process's order of sets of strings, which only {HASH_SEED} fixes, before "
        f"Python starts. To get what workers get from this seed, start it with {HASH_SEED}={hash_seed}",
        RuntimeWarning,
        stacklevel=2,
    )


def negmas_seed(index: int) -> int | None:
    """What negmas itself wants the task of that number seeded with (``NEGMAS_RAND_SEED``); ``None``: nothing."""
    try:
        from negmas.helpers.rand import task_seed  # since 0.16
    except ImportError:
        return None
    seed: int | None = task_seed(index)
    return seed
