"""The state of a task in a few words, from its story: what the ``repr`` of a future shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.model.events import ENDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilient_exec.model.events import Event

__all__ = ["progress", "span"]

_LONG = 0.1  # s: from here on one decimal is enough
_ENDED = {
    "returned": "returned",
    "died": "its worker died",
    "timed_out": "timed out",
    "out_of_memory": "out of memory",
    "killed": "killed",
    "not_sent": "not sendable",
}
_STATES = {
    "queued": "queued",
    "sent": "sent",
    "begun": "running",
    "doomed": "being ended",
    "backing_off": "backing off",
}


def progress(story: Iterable[Event], now: float, most: int | None = None) -> str:
    """Such as ``running, attempt 2 of 3, 4.1 s``: the state, the attempt, and how long that has lasted or did last.

    Args:
        story: the events of the task so far, in order.
        now: seconds on the clock of the events; what runs is measured by it.
        most: attempts in all, where there is such a limit (of two at once, one counts).
    """
    state, attempt, end = "queued", 0, now
    begun: float | None = None
    for event in _main_line(tuple(story)):
        kind = event.kind
        if kind in _STATES:
            state, end = _STATES[kind], now
            if kind in ("sent", "begun"):
                attempt = event.attempt
            if kind != "doomed":
                begun = event.at if kind == "begun" else None
        elif kind in _ENDED:
            state, end = _ENDED[kind], event.at
        elif kind == "raised":
            state, end = f"raised {event.detail.get('exception')}", event.at
        elif kind == "settled" and state in _STATES.values():  # without an attempt that ended
            state, end = event.detail.get("how", "failed"), event.at
    parts = [state]
    if attempt:
        parts.append(f"attempt {attempt}" + (f" of {most}" if most is not None and attempt <= most else ""))
    if begun is not None:
        parts.append(span(end - begun))
    return ", ".join(parts)


def _main_line(story: tuple[Event, ...]) -> Iterable[Event]:
    """Of two attempts at once only the one that counts: which has settled the task, or else lives, the later one."""
    if all(event.kind != "speculated" for event in story):
        return story
    live: dict[int, None] = {}
    for event in story:
        if event.kind == "sent":
            live[event.attempt] = None
        elif event.kind in ENDS:
            live.pop(event.attempt, None)
    shown = story[-1].attempt if story[-1].kind == "settled" or not live else list(live)[-1]
    return (event for event in story if event.attempt in (0, shown))


def span(seconds: float) -> str:
    """A length of time in few characters: ``0.012 s``, ``4.1 s``, ``7204.0 s``."""
    return f"{max(0.0, seconds):.1f} s" if seconds >= _LONG else f"{max(0.0, seconds):.3f} s"
