"""In the worker: notes which agent is on stage, and measures its wall time, CPU time and memory.

An agent is on stage while the world runs its code.  :mod:`.blame.entries` hooks the functions by which that begins;
each hook notes the agent in the worker's register, and notes the previous one when the call ends (also by an
exception).  If the process is killed, the register still holds the note.  The hooked functions are

* ``World.call``: all callbacks of agents, except empty ones (:mod:`.blame.empty_callbacks`);
* ``SAOMechanism._safe_counter``: the negotiators' ``propose`` and ``respond``, distinguished by whether there is an
  offer, and by negmas' own ``propose_``;
* ``Mechanism.add``: joining a negotiation;
* in the types of agents, negotiators and controllers: ``on_negotiation_start`` and other callbacks;
* in the types of agents: ``__init__`` and ``before_step``, which worlds call directly.

The import of the agents' types is noted, too.

How it is measured:

* The wall time and CPU time between the begin of a call and the next hook or its end are the agent's.  If an agent
  calls the world, which calls another agent, that time is the other agent's.
* CPU time is that of the whole process, so the threads of an agent are included.  Since reading it is slow, it is read
  when a call ends after more than 5 ms, and otherwise every 20 ms, and is divided among the agents in proportion to
  their time on stage since the last reading.
* The resident set is read when a step begins, and when a call ends after at least 5 ms of which 4 were CPU time.  Its
  growth is attributed to whoever was on stage then, which may be the world itself.

Only calls in the thread that runs the world are noted.  What an agent does in a thread of its own is attributed to
whoever is on stage at that time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame.empty_callbacks import is_empty
from resilient_exec.adapters.negmas.blame.notes import BEFORE, NOBODY, OnStage, note_prefix
from resilient_exec.wire.register import WHICH, Note
from resilient_exec.worker.context import notes

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.adapters.negmas.blame.growth import Growth

__all__ = ["Measured", "Watch"]

_SAMPLE_INTERVAL = 0.005  # s between two calls of Watch.sample, at least
_LONG_STAY = 0.005  # s on stage after which the CPU clock is read
_MUCH_CPU = 0.004  # s of CPU time in these for the resident set to be read: code that waits for a CPU takes no memory
_MAX_CPU_INTERVAL = 0.02  # s after which the CPU clock is read in any case; in a process with threads this is slow
_DECIMALS = 6  # of the seconds that are kept, since they are written to a file as text
_now = time.perf_counter
_FIRST_DESCRIPTOR = 128  # lower descriptors are closed by some agents


@dataclass
class Measured:
    """What was measured about one agent in a world set that has ended.

    Attributes:
        competitor: full name of its own type.
        cpu, wall: seconds on stage, one value for each step in which it was on stage.
        exceptions: number of exceptions that its callbacks and its negotiators raised.
        peak: the largest resident set of the worker, in bytes, when a call of it ended.
        grown: bytes by which the resident set grew while it was on stage, in total.
    """

    competitor: str
    cpu: array[float] = field(default_factory=lambda: array("d"))
    wall: array[float] = field(default_factory=lambda: array("d"))
    exceptions: int = 0
    peak: int = 0
    grown: int = 0


class _Activity(Note):
    """One actor in one of its methods, as a note; the step is stored apart, as the number of the note."""

    __slots__ = ("actor", "method")

    def __init__(self, actor: _Actor, method: str) -> None:
        self.actor, self.method = actor, method.rstrip("_")  # negmas' own wrappers of callbacks end with "_"
        super().__init__(note_prefix(actor.name, actor.agent, self.method), numbered=True)


class _Nobody(_Activity):
    """The world's own code: no agent is on stage."""

    __slots__ = ()

    def __init__(self) -> None:
        Note.__init__(self, NOBODY)
        self.actor, self.method = _Actor("", ""), ""
        self.actor.proposes = self  # so that a propose_ with nobody on stage does not change the note


class _Actor:
    """One agent, or a controller or negotiator that belongs to none.

    Attributes:
        name: full name of its type.
        agent: its id in the world.
        activities: by the name of the method.
        proposes, responds: its activities in the two methods that are called most; ``None``: not made yet.
        calls: its activities in methods that ``World.call`` calls, by name; ``None``: the method is empty.
        cpu, wall: seconds on stage in this step, until the CPU clock was last read.
        unshared: seconds on stage since then.
    """

    __slots__ = ("activities", "agent", "calls", "cpu", "measured", "name", "proposes", "responds", "unshared", "wall")

    def __init__(self, name: str, agent: str) -> None:
        self.name, self.agent = name, agent
        self.measured = Measured(name)
        self.activities: dict[str, _Activity] = {}
        self.calls: dict[str, _Activity | None] = {}
        self.proposes: _Activity | None = None
        self.responds: _Activity | None = None
        self.cpu = self.wall = self.unshared = 0.0

    def end_step(self, step: int) -> None:
        """Keep what was measured in that step, if the actor was on stage in it, and begin with zero."""
        if self.wall and step != BEFORE:
            self.measured.cpu.append(round(max(0.0, self.cpu), _DECIMALS))
            self.measured.wall.append(round(self.wall, _DECIMALS))
        self.cpu = self.wall = 0.0

    def activity(self, method: str) -> _Activity:
        """The activity of this actor in that method."""
        activities = self.activities
        return activities[method] if method in activities else self._add_activity(method)

    def add_call(self, agent: Any, method: Any) -> _Activity | None:
        """The activity in a bound method that ``World.call`` calls for the first time; ``None``: it is empty."""
        name = getattr(method, "__name__", "?")
        activity = self.calls[name] = None if is_empty(agent, method) else self.activity(name)
        return activity

    def _add_activity(self, method: str) -> _Activity:
        activity = self.activities[method] = _Activity(self, method)
        if method == "propose":
            self.proposes = activity
        elif method == "respond":
            self.responds = activity
        return activity


class Watch:
    """Who is on stage in one world set, and what was measured.

    Args:
        names: the full names of types, as the configurations have them.

    Attributes:
        thread: id of the thread that runs the world.
        step: of the world.
        actors: by the ``id()`` of an agent or its controller; ``None``: it is no agent.
        notes: the notes in the worker's register.
        activity: who is on stage, in which method.
        since: when that began or was returned to, by ``clock``.
        next_sample: when to call :meth:`sample` next, by ``clock``.
    """

    def __init__(self, names: dict[type, str]) -> None:
        self.thread = threading.get_ident()
        self.step = BEFORE
        self.actors: dict[int, _Actor | None] = {}
        self._kept: list[Any] = []  # references to the keys of actors, so that no other object gets the same id()
        self._worlds: dict[int, Any] = {}
        self._names = dict(names)
        self.hook_callbacks: Callable[[type], None] = _hook_nothing  # set by entries.hook
        self.notes = notes()
        self._which, self._put = self.notes.which, self.notes.put
        self._nobody = _Nobody()
        self.activity: _Activity = self._nobody
        self._all_actors = [self._nobody.actor]
        self.clock = _now
        self.since = self.clock()
        self._cpu, self._sampled = time.process_time(), self.since  # at the last reading of the CPU clock
        self.next_sample = self.since + _SAMPLE_INTERVAL
        self._raised_by: tuple[int, OnStage] | None = None
        self._statm = _open_statm()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._resident = 0
        self.growth: Growth | None = None  # set where growth is to be known after the worker was killed
        self.notes.number(BEFORE)
        self.notes.hold(self._nobody)

    # -- calls of agents
    #
    # A world calls this some thousand times a second, from code that has displaced these lines from the processor's
    # caches, so that a function call costs ten times what it costs in a loop.  Therefore the begin and the end of a
    # call are inlined here and in entries (for World.call and SAOMechanism._safe_counter), and so is Notes.hold.

    def call_on_stage(self, actor: _Actor, method: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function of the actor, with the actor on stage; the time before it is that of the one before."""
        activities = actor.activities
        activity = activities[method] if method in activities else actor.activity(method)
        before, which, put = self.activity, self._which, self._put
        now = self.clock()
        before.actor.unshared += now - self.since
        if now > self.next_sample:
            self.sample(now)
        self.since, self.activity = now, activity
        which[WHICH] = activity.place or put(activity)
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            self.record_exception(error)
            raise
        finally:
            now = self.clock()
            actor.unshared += now - self.since
            if now > self.next_sample:
                self.sample(now)
            self.since, self.activity = now, before
            which[WHICH] = before.place or put(before)

    def sample(self, now: float) -> None:
        """Read CPU clock and resident set if the call that ends, or the time since the last reading, was long.

        Args:
            now: by ``clock``.
        """
        self.next_sample = now + _SAMPLE_INTERVAL
        stayed = now - self.since
        if stayed <= _LONG_STAY and now - self._sampled < _MAX_CPU_INTERVAL:
            return
        if stayed * self._share_out(now) > _MUCH_CPU:
            self.sample_memory(self.activity.actor)

    def _share_out(self, now: float) -> float:
        # Divides the CPU time since the last reading in proportion to the actors' time on stage; returns CPU s per s.
        cpu = time.process_time()
        rate = (cpu - self._cpu) / (now - self._sampled) if now > self._sampled else 0.0
        self._cpu, self._sampled, self.next_sample = cpu, now, now + _SAMPLE_INTERVAL
        for actor in self._all_actors:
            stayed = actor.unshared
            if stayed:
                actor.cpu += stayed * rate
                actor.wall += stayed
                actor.unshared = 0.0
        return rate

    def sample_memory(self, actor: _Actor) -> None:
        """Read the resident set of this process; its growth since the last reading is attributed to ``actor``."""
        if self._statm < 0:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):  # an agent may have closed the descriptor
            held = int(os.pread(self._statm, 64, 0).split()[1]) * self._page
            measured = actor.measured
            measured.peak = max(measured.peak, held)
            grown = max(0, held - self._resident)
            measured.grown += grown
            if grown and self._resident and self.growth is not None:
                self.growth.add(actor.name, self.activity.method, grown, held)
            self._resident = held

    def begin_step(self, step: int) -> None:
        """End the measurements of the present step, and begin those of ``step``."""
        self.attribute_until_now()
        for actor in self._all_actors[1:]:
            actor.end_step(self.step)
        self.step = step
        self.notes.number(step)

    def attribute_until_now(self) -> None:
        """Attribute wall time, CPU time and memory until now to the actors that were on stage."""
        now = self.clock()
        self.activity.actor.unshared += now - self.since
        self._share_out(now)
        self.since = now
        self.sample_memory(self.activity.actor)

    # -- agents and their names

    def add_agent(self, one: Any, world: Any = None) -> _Actor | None:
        """Make the actor of an agent that is seen for the first time; ``None``: it is no agent (a bulletin board, say).

        Args:
            one: the agent, or the adapter around it.
            world: that calls it; ``None``: not known.
        """
        self._kept.append(one)
        own = getattr(one, "_obj", None)
        if world is not None and id(world) not in self._worlds:
            self._worlds[id(world)] = world
        agents = getattr(world, "agents", {})
        agent_id = str(getattr(one, "id", ""))
        actor = None
        if world is None or agent_id in agents:
            kind = type(one if own is None else own)
            actor = _Actor(self._name(kind), agent_id)
            self._all_actors.append(actor)
        self.actors[id(one)] = actor
        if own is not None:
            self._kept.append(own)
            self.actors[id(own)] = actor
        return actor

    def add_names(self, names: dict[type, str]) -> None:
        """Add the names by which the configurations know these types."""
        self._names.update(names)
        self.notes.hold(self._nobody)

    def _name(self, kind: type) -> str:
        return self._names.get(kind) or f"{kind.__module__}.{kind.__name__}"

    def actor_of_negotiator(self, negotiator: Any) -> _Actor | None:
        """The actor of a negotiator: its owner, else its controller, else the negotiator itself."""
        try:  # read directly, since negotiators of controllers look up every attribute in Python code
            one = object.__getattribute__(negotiator, "_Negotiator__owner")
        except AttributeError:
            one = getattr(negotiator, "owner", None)
        if one is None:
            one = getattr(negotiator, "parent", None) or negotiator
        key = id(one)
        return self.actors[key] if key in self.actors else self.add_agent(one)

    def new_actor(self, one: Any) -> _Actor:
        """An actor for an agent that is being made, which has no id yet."""
        return _Actor(self._name(type(one)), "")

    # -- exceptions

    def record_exception(self, error: BaseException) -> None:
        """An exception leaves the agent on stage: of several, the first one that it leaves has raised it."""
        where = self.activity
        if where is not self._nobody and (self._raised_by is None or self._raised_by[0] != id(error)):
            self._raised_by = (id(error), OnStage(where.actor.name, where.actor.agent, where.method, self.step))

    def note_raiser(self, error: BaseException | None) -> None:
        """Note the agent that has raised ``error``, with which the world ends, or its cause, if an agent has."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            if self._raised_by is not None and self._raised_by[0] == id(error):
                self.notes.hold(Note(self._raised_by[1].note()))
                return
            seen.add(id(error))
            error = error.__cause__ or error.__context__

    def measured(self) -> list[Measured]:
        """The measurements of each agent; to be called when the worlds have ended."""
        self.attribute_until_now()
        actors = {id(actor): actor for actor in self.actors.values() if actor is not None and actor.agent}
        for actor in actors.values():
            actor.end_step(self.step)
            for world in self._worlds.values():
                for kind in ("agent_exceptions", "negotiator_exceptions"):
                    actor.measured.exceptions += len(getattr(world, kind, {}).get(actor.agent, ()))
        return [actor.measured for actor in actors.values()]

    def close(self) -> None:
        """Close the descriptor, and drop the references to agents and worlds."""
        with contextlib.suppress(OSError):  # an agent may have closed it, and the number may now be another file's
            if self._statm >= 0 and os.readlink(f"/proc/self/fd/{self._statm}").endswith("/statm"):
                os.close(self._statm)
        self.actors.clear()
        self._kept.clear()
        self._worlds.clear()


def _hook_nothing(kind: type) -> None:
    """Hook nothing."""


def _open_statm() -> int:
    """A descriptor of ``/proc/self/statm`` with a high number, which agents do not close; -1: there is none."""
    try:
        import fcntl

        low = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
        finally:
            os.close(low)
    except (ImportError, OSError):
        return -1
