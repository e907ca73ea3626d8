"""The few facts that the laws of the core speak of: who holds what, what was told to have begun, who was charged.

``core_model.Shell`` keeps them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Command,
    Stimulus,
    TimePassed,
)
from resilient_exec.model.memory_level import MemoryLevel

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fake_lane import Call, FakeLane

    from resilient_exec.core.states import Limits
    from resilient_exec.model.events import Event
    from resilient_exec.model.task import Task


class Unusable:
    """A user's key: the core may neither compare it nor hash it; who checks the laws compares events, and so keys."""

    __hash__ = None
    core_works = False  # set by `told`

    def __init__(self, number: Hashable) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        if Unusable.core_works:
            raise AssertionError("the core compared a user's key")
        return isinstance(other, Unusable) and self.number == other.number


def told(core: Core, stimulus: Stimulus, now: float) -> list[Command]:
    """What the core answers; meanwhile no user's key can be compared."""
    Unusable.core_works = True
    try:
        return core.handle(stimulus, now)
    finally:
        Unusable.core_works = False


def number_of(event: Event) -> Hashable:
    """Of the task that the event is about."""
    return event.key.number if event.key is not None else None


@dataclass
class Truth:
    """What has been told about one unsettled task."""

    task: Task
    order: int
    events: list[Event] = field(default_factory=list)
    begun: int = 0
    begun_at: float = 0.0
    charged: dict[int, bool] = field(default_factory=dict)  # attempt: whether another was granted
    causes: Counter[str] = field(default_factory=Counter)
    lost: int = 0  # in a row
    evicted: set[int] = field(default_factory=set)  # attempts
    swollen: set[int] = field(default_factory=set)  # attempts that were said to hold too much
    warned: int = 0  # the attempt in which SoftTimeout was last raised
    killed: bool = False  # by the user
    cancelled: bool = False  # its future
    sent: bool = False  # its future cannot be cancelled any more

    @property
    def rank(self) -> tuple[float, int]:
        return (-self.task.priority, self.order)


class Facts:
    """What the laws speak of."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.core = Core(limits)
        self.now = 0.0
        self.stimulus: Stimulus = TimePassed()
        self.history: list[tuple[Stimulus, float, list[Command]]] = []
        self.lanes: dict[int, FakeLane] = {}
        self.up: set[int] = set()  # lanes that have told of a worker, and not of its end
        self.ending: set[int] = set()  # lanes that were told to end their worker in peace
        self.held: dict[int, list[Call]] = {}  # by lane, as far as it has told
        self.truths: dict[Hashable, Truth] = {}
        self.ended: Counter[str] = Counter()
        self.submitted = 0
        self.shutdowns = 0
        self.no_retries = False
        self.failed_starts = 0  # in a row
        self.level = MemoryLevel.OK
        self.level_changed = False  # by the last word about it
        self.swollen: set[int] = set()  # lanes whose empty worker holds more than it may
        self.finished = 0
