"""The ``seed=`` of a pool: what its workers are told, and which keys its tasks have."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resilient_exec.pool.keys import take
from resilient_exec.pool.options import UNSET
from resilient_exec.worker.random_streams import canonical

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.pool.task_options import Options

__all__ = ["Seeded"]


class Seeded:
    """A pool's seed, and the numbers of its tasks: a chunk takes as many of them as it has calls."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._numbers = itertools.count()

    def key_of(self, options: Options, calls: int = 1) -> Hashable:
        """The task's key, which must be the same in each run; without one, its number, or that of the first call.

        Raises:
            TypeError: the key is told by its place in memory only.
        """
        if options.key is not UNSET:
            canonical(options.key)
            return options.key
        return take(self._numbers, calls)
