"""Seeds worlds, so that their scores depend only on the seed and the world's name.

Under ``options(seed=7)`` the world generator is wrapped in :class:`Seeded`.  It seeds the global generators of
:mod:`random` and numpy (and those registered with negmas' ``register_seeder``) from the seed and the world's name, both
before the world is generated and after that.  So earlier random draws of the process have no effect.  The time of
creation, which negmas writes into the names of worlds, is left out of the name: a tournament that is created again from
the same random state has the same scores.

Two more causes of differences between runs are handled:

* *The clock.*  ``Mechanism.step`` draws a random number at each step, and another one whenever a second has passed, for
  ``pend_per_second``.  If ``pend_per_second`` is 0, that number has no effect of its own, but shifts all later draws;
  so it is not drawn then.  (If ``pend_per_second`` is used, the result depends on the clock by design.)
* *The order of sets of strings*, on which SCML's worlds depend.  All workers get the same ``PYTHONHASHSEED``: that of
  this process's environment, or else one that is computed from the seed.  A serial run happens in this process, of
  which the order cannot be changed any more; a warning then says which number to set.

Not covered are random generators that an agent makes for itself, agents that read the clock, and agents that keep state
from one world to the next in the same process.
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

__all__ = [
    "HASH_SEED",
    "Seeded",
    "check_clock",
    "hash_seed",
    "negmas_seed",
    "reseed",
    "run_with_own_state",
    "serial_run",
    "warn_of_hash_order",
    "worker_environment",
    "world_seed",
]

HASH_SEED = "PYTHONHASHSEED"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
_CREATED = re.compile(r"\d{8}H\d{12}")  # the time of creation, as negmas' unique_name writes it
_LAST_SECOND = "_Mechanism__last_second_tried"  # the attribute of a mechanism with the second of the last draw


def world_seed(seed: int, name: str, purpose: str = "") -> int:
    """The seed of a world, an int of 64 bits.

    Args:
        seed: of the tournament.
        name: of the world; the time of creation in it is ignored.
        purpose: distinguishes several seeds of one world.
    """
    text = f"{seed}:{purpose}:{_CREATED.sub('', name)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def hash_seed(seed: int, environment: Mapping[str, str] | None = None) -> str:
    """The ``PYTHONHASHSEED`` of workers: that of this process's environment, or one computed from the seed."""
    return _own_hash_seed(environment) or str(seed % 2**32)


def _own_hash_seed(environment: Mapping[str, str] | None = None) -> str:
    """The ``PYTHONHASHSEED`` that this process was started with; ``""``: none."""
    if sys.flags.ignore_environment:
        return ""
    given = (os.environ if environment is None else environment).get(HASH_SEED, "")
    return given if given.isdecimal() else ""  # it may be "random"


@dataclass(frozen=True)
class Seeded:
    """A world generator that seeds all random generators before and after the inner one; it is pickled to workers.

    Attributes:
        generator: the inner generator, of negmas or of the user.
        seed: of the tournament.
        hash_seed: the ``PYTHONHASHSEED`` of workers.
    """

    generator: Callable[..., Any]
    seed: int
    hash_seed: str

    def __call__(self, **config: Any) -> Any:
        """Generate the world of this configuration, and set the random state with which its run begins."""
        name = config["world_params"]["name"]  # read first, since generators change the parameters
        _suppress_clock_draws()
        reseed(world_seed(self.seed, name, "generate"))
        world = self.generator(**config)
        reseed(world_seed(self.seed, name, "run"))
        return world

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the workers' environment."""
        return worker_environment(self.hash_seed)

    @property
    def other_environment(self) -> dict[str, str]:
        """The same variables of the environment, with another hash seed."""
        return worker_environment(str((int(self.hash_seed) + 1) % 2**32))


def worker_environment(hash_seed: str) -> dict[str, str]:
    """Return the variables that workers of a tournament with a seed have.

    Numerical libraries get one thread: how many they use changes the last digits of sums, and would depend on how many
    workers there are.  A number that this process's environment sets stays.
    """
    is_set = any(name.endswith("_NUM_THREADS") or name in _ONE_THREAD for name in os.environ)
    return {HASH_SEED: hash_seed, **({} if is_set else _ONE_THREAD)}


def reseed(number: int) -> None:
    """Seed every global generator that negmas draws from."""
    try:
        from negmas.helpers.rand import apply_seed  # since 0.16; it also seeds generators that were registered
    except ImportError:
        import numpy as np

        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002  it is the one that negmas draws from
    else:
        apply_seed(number)


# -- the clock


class _NoClockDraws:
    """A descriptor in place of ``Mechanism.__last_second_tried``, with which the elapsed seconds are compared.

    If ``pend_per_second`` is 0, it is infinite, so that no second ever seems to have passed and no number is drawn.
    """

    def __get__(self, mechanism: Any, owner: type | None = None) -> Any:
        if mechanism is None:
            return self
        nmi = getattr(mechanism, "_internal_nmi", None) or mechanism.nmi
        return vars(mechanism)[_LAST_SECOND] if nmi.pend_per_second > 0 else math.inf

    def __set__(self, mechanism: Any, second: int) -> None:
        vars(mechanism)[_LAST_SECOND] = second  # stored where it is without this descriptor, which may be removed


def _suppress_clock_draws() -> None:
    mechanism = _mechanism()
    if _LAST_SECOND not in vars(mechanism):
        setattr(mechanism, _LAST_SECOND, _NoClockDraws())


def _mechanism() -> Any:
    from negmas.mechanisms import Mechanism  # imported here, since it takes seconds and not every worker needs it

    return Mechanism


def check_clock() -> None:
    """Refuse a negmas in which the draws by the clock cannot be suppressed.

    Raises:
        RuntimeError: the attribute of ``Mechanism`` that is replaced for this does not exist.
    """
    code = getattr(getattr(_mechanism(), "step", None), "__code__", None)
    if code is None or _LAST_SECOND not in code.co_names:
        raise RuntimeError(
            "options(seed=...) does not fit this version of negmas: negmas.mechanisms.Mechanism.step has no "
            f"{_LAST_SECOND}; run without a seed, or with negmas 0.11 to 0.16"
        )


# -- in this process


class _Serial:
    """How many serial runs are under way in this process, in whichever thread."""

    lock = threading.Lock()
    running = 0


@contextmanager
def serial_run(seeded: Seeded) -> Iterator[None]:
    """For a serial run in this process: restore the random state and negmas' draws by the clock at its end."""
    warn_of_hash_order(seeded.hash_seed)
    with _restored_state():
        yield


def run_with_own_state(seed: int, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` with a random state made from ``seed``; then restore random state and negmas' draws by the clock."""
    with _restored_state():
        _suppress_clock_draws()
        reseed(seed)
        return fn(*args, **kwargs)


@contextmanager
def _restored_state() -> Iterator[None]:
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
            if not _Serial.running and _LAST_SECOND in vars(_mechanism()):
                delattr(_mechanism(), _LAST_SECOND)


def warn_of_hash_order(hash_seed: str) -> None:
    """Warn if this process orders sets of strings differently than workers with this hash seed, and say what to set."""
    if _own_hash_seed() == hash_seed:
        return
    warnings.warn(
        f"a serial run depends on this process's order of sets of strings, which only {HASH_SEED} fixes, before "
        f"Python starts. To get what workers get from this seed, start it with {HASH_SEED}={hash_seed}",
        RuntimeWarning,
        stacklevel=2,
    )


def negmas_seed(index: int) -> int | None:
    """The seed that negmas itself gives to the task of that number (``NEGMAS_RAND_SEED``); ``None``: none."""
    try:
        from negmas.helpers.rand import task_seed  # since 0.16
    except ImportError:
        return None
    seed: int | None = task_seed(index)
    return seed
