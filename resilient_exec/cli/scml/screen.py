"""What the organiser sees while a tournament runs: one line that is kept up to date, or a line every so often.

Nothing that negmas or the agents print in this process gets between: it goes into a file of the tournament's folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_exec.adapters.text import plain
from resilient_exec.cli.tables import fit_names, width_of
from resilient_exec.pool.durations import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from resilient_exec.adapters.negmas.report.progress import Progress

__all__ = ["Screen", "progress_line", "without_prints"]

_EVERY = 30.0  # s between two lines where there is no terminal
_OFTEN = 0.5  # s between two looks of the line in a terminal


def progress_line(progress: Progress, now: float, width: int | None) -> str:
    """How far it is, in one line.

    Args:
        progress: of the tournament.
        now: ``time.time``.
        width: of the terminal; what has no room is left out.  ``None``: all is said.
    """
    lost = progress.settled - progress.scored
    parts = [f"{progress.settled} of {progress.planned} {progress.kind}"]
    parts += [f"{lost} without a score"] if lost else []
    left = progress.seconds_left(now)
    longest = ""
    if progress.running:
        one = min(progress.running.values(), key=lambda one: one.since)
        names = ", ".join(fit_names(one.competitors, 0))
        longest = f" (longest {short(max(0.0, now - one.since))}: {names})"
        parts.append(f"{len(progress.running)} running")
    end = [] if left is None else [f"about {short(left)} left"]
    if progress.settled >= progress.planned:
        end = []
    texts = [", ".join([*parts[:-1], parts[-1] + longest, *end]), ", ".join([*parts, *end]), ", ".join(parts)]
    fitting = [text for text in texts if width is None or len(text) < width]
    return plain(fitting[0] if fitting else texts[-1][: max(1, (width or 80) - 1)])


class Screen:
    """Tells of progress; stands in for ``Audience``.

    Args:
        stream: where, usually stderr.
        is_quiet: tell nothing.
        clock: seconds, monotonic.
        on_folder: is called once with the folder of the tournament, as soon as that is known.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        is_quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        on_folder: Callable[[Path], None] | None = None,
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self._width = width_of(self.stream)
        self._is_quiet = is_quiet
        self._clock = clock
        self._on_folder = on_folder
        self._told = clock()
        self._drawn = ""
        self.folder: Path | None = None
        self.latest: Progress | None = None

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._is_quiet:
            self._erase()
            self._write(f"resilient-exec: {plain(text)}\n")

    def progress(self, progress: Progress) -> None:
        """Show the progress (see ``Audience``)."""
        self.latest = progress
        if self.folder is None and progress.folder is not None:
            self.folder = progress.folder
            if self._on_folder is not None:
                self._on_folder(progress.folder)
        now = self._clock()
        if self._is_quiet or now - self._told < (_EVERY if self._width is None else _OFTEN):
            return
        self._told = now
        line = progress_line(progress, time.time(), self._width)
        if self._width is None:
            self._write(f"resilient-exec: {line}\n")
        else:
            self._erase()
            self._drawn = line
            self._write(line)

    def ended(self) -> None:
        """Show the end (see ``Audience``)."""
        self._erase()

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r" + " " * len(self._drawn) + "\r")
            self._drawn = ""

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone, which ends no tournament
            self.stream.write(text)
            self.stream.flush()

    @contextmanager
    def alone(self, *, verbose: bool) -> Iterator[None]:
        """Let nothing that negmas or an agent prints in this process reach the terminal, unless ``verbose``."""
        if verbose:
            yield
            return
        with without_prints() as (err, _):
            stream, self.stream = self.stream, err
            try:
                yield
            finally:
                self.stream = stream


@contextmanager
def without_prints() -> Iterator[tuple[TextIO, Path]]:
    """Let nothing that is printed in this process in the block reach the terminal, by whatever way it is printed.

    Yields:
        The stderr from before, and the file into which it goes: removed at the end, if nobody has moved it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    handle, name = tempfile.mkstemp(prefix="resilient-exec-", suffix=".txt")
    kept = [os.dup(1), os.dup(2)]
    err = io.TextIOWrapper(os.fdopen(os.dup(2), "wb", 0), write_through=True, errors="backslashreplace")
    try:
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        with _printing_on(handle):
            yield err, Path(name)
    finally:
        for fd, copy in enumerate(kept, start=1):
            os.dup2(copy, fd)
            os.close(copy)
        os.close(handle)
        err.close()
        with contextlib.suppress(OSError):
            os.unlink(name)


@contextmanager
def _printing_on(handle: int) -> Iterator[None]:
    # sys.stdout may be another one than descriptor 1 (a test, a notebook): what it is given is not to be seen either.
    file = io.TextIOWrapper(os.fdopen(os.dup(handle), "wb", 0), write_through=True, errors="backslashreplace")
    with file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield
