"""What travels to a worker while it is started: descriptors, the script that it imports, the user's initializer."""

from __future__ import annotations

import os
import pickle

from resilient_exec.wire import pickling
from resilient_exec.wire.script import OF_THE_WORKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilient_exec.wire.script import Known, Script

__all__ = ["Inherited", "Numbered", "PickledApart", "prepare"]


class Inherited:
    """A descriptor that travels to the worker while it is started, and at no other time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd

        return _arrive, (DupFd(self.fd),)


class Numbered:
    """A descriptor by the number that it has in the worker: what multiprocessing makes of one while that is started."""

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """The number."""
        return self._number


def _arrive(duplicate: Any) -> Inherited:
    return Inherited(duplicate.detach())


class PickledApart(Inherited):
    """The script to import, the user's initializer and its arguments, pickled by themselves into a file.

    By themselves, so that what fails to unpickle fails where we can tell the parent, and not in the start of a
    process; but while one is being started, because multiprocessing's locks travel only then.
    """

    def __init__(
        self, fd: int, script: Script | None, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        super().__init__(fd)
        self.script = script
        self.call = (initializer, initargs)

    def __reduce__(self) -> tuple[Any, ...]:
        with open(self.fd, "wb", closefd=False) as file:
            pickle.dump(self.script, file)
            if self.call[0] is None:
                pickle.dump(self.call, file)
            else:
                pickling.start_pickler(self.script)(file).dump(self.call)
        return super().__reduce__()


def prepare(fd: int) -> Known | None:
    """In the worker: import the script, call the initializer (in this order, since the one may be in the other).

    Returns:
        What the parent has of this process's ``__main__``; ``None``: it goes by value.
    """
    pid = os.getpid()
    known: Known | None = None
    with open(fd, "rb") as file:
        file.seek(0)
        script = pickle.load(file)
        if script is not None:
            from resilient_exec.worker.script import import_script

            known = OF_THE_WORKER if import_script(script) else None
        fn, args = pickle.load(file)
    if fn is not None:
        fn(*args)
    if os.getpid() != pid:
        os._exit(0)  # a child that the script or the initializer forked, and that came back out of it
    return known
