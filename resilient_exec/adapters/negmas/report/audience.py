"""Who is told of a tournament while it runs and at its end: stderr and a warning, or whoever stands in for them.

Scripts and notebooks are told on stderr, with negmas' own progress bar.  The command line has tables of its own, and a
file for what each world prints: it listens by :func:`telling`.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilient_exec.adapters.negmas.report.progress import Progress

__all__ = ["Audience", "current", "telling"]


class Audience(Protocol):
    """Listens in place of stderr; called in the thread that runs the tournament."""

    def progress(self, progress: Progress) -> None:
        """Something has changed, or some half second has passed."""

    def ended(self) -> None:
        """The tournament has ended; ``last_report()`` is its report."""


_listening: ContextVar[Audience | None] = ContextVar("resilient_exec_audience", default=None)


def current() -> Audience | None:
    """Return who is told; ``None``: what is told goes to stderr."""
    return _listening.get()


@contextmanager
def telling(audience: Audience) -> Iterator[None]:
    """Tell ``audience`` of the tournaments that run in the block."""
    token = _listening.set(audience)
    try:
        yield
    finally:
        _listening.reset(token)
