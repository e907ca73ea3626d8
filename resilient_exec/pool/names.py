"""Numbers and keys of tasks: what each is called, inside the pool and by its user."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resilient_exec.model.summary import named
from resilient_exec.pool.keys import IN_USE, Keys, name_of, packed, take
from resilient_exec.pool.options import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from resilient_exec.pool.seeding import Seeded
    from resilient_exec.pool.task_options import Options

__all__ = ["Names"]


class Names:
    """Gives each task of a pool its number and its key.

    Args:
        seeded: the pool's seed, on which keys depend, too; ``None``: there is none.
        has_default_key: whether an unsettled task that was given no key has that number.
    """

    def __init__(self, seeded: Seeded | None, has_default_key: Callable[[int], bool]) -> None:
        self.keys = Keys()
        self._numbers = itertools.count()
        self._seeded, self._has_default_key = seeded, has_default_key

    def number(self, calls: int = 1) -> int:
        """The number of a task that is given no key, or of the first of so many calls; it is their key."""
        number = next(self._numbers) if calls == 1 else take(self._numbers, calls)
        while self.keys.is_any_taken(range(number, number + calls)):
            number = take(self._numbers, calls)
        return number

    def of(self, options: Options, calls: int = 1) -> tuple[int, Hashable, str, bytes | None]:
        """The number of a new task, its key, the key as a text, and as it travels (empty where the number will do).

        Of a chunk of so many ``calls``: the number of the first one.

        Raises:
            ValueError: an unsettled task has the key.
        """
        if options.key is UNSET and self._seeded is None:
            number = self.number(calls)
            return number, number, "", None
        number = take(self._numbers, calls)
        key = options.key if self._seeded is None else self._seeded.key_of(options, calls)
        if type(key) is int and options.key is not UNSET and self._has_default_key(key):
            raise ValueError(IN_USE.format(key))
        data = packed(key)
        return number, key, name_of(key) or ("" if data else named(key)), data
