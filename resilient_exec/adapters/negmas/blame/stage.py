"""In the worker: notes whose code a world enters, at each entry, and measures how long it stays and what it takes.

While :func:`watch` is in force, five functions of negmas note in the worker's register who comes on stage, and who is
back when it leaves (also by an exception).  A process that is killed then leaves behind who it was:

* ``World.call``: every callback of an agent in which there is something (:mod:`.blame.empty_callbacks`);
* ``SAOMechanism._safe_counter``: its negotiators' ``propose`` and ``respond``, told apart by whether there is an offer,
  and by negmas' own ``propose_``;
* ``Mechanism.add``: joining a negotiation;

and of the agents' own types, and of their negotiators' and controllers', ``on_negotiation_start`` and the like; of the
agents' ``__init__`` and ``before_step``, too, which worlds call directly, and the import of these.

The time and the CPU time between an entry and the next one or the exit are the agent's; when it calls the world,
which calls another agent, those are the other's.  CPU time is the whole process's: threads of an agent count.  It is
asked for when somebody leaves after more than 5 ms, and every 20 ms, and shared out by the time that each was on stage
since then.  The resident set is looked at when a step begins and after 5 ms without a change, 4 of them on the CPU:
what it has grown by is laid at the door of who was there, which may be the world's own.

Only the thread that runs the world comes on stage: what an agent does in a thread of its own, behind the world's
back, happens under whoever is on stage then.
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
from resilient_exec.adapters.negmas.blame.notes import BEFORE, NOBODY, OnStage, head
from resilient_exec.wire.register import WHICH, Note
from resilient_exec.worker.context import notes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Measured", "Watch"]

_OFTEN = 0.005  # s after which it is asked whether somebody has been on stage for long
_LONG = 0.005  # s on stage after which the CPU clock is read
_BUSY = 0.004  # s of CPU time in these after which the resident set is looked at: who waits for a CPU takes no memory
_SELDOM = 0.02  # s after which it is read anyhow: in a process with threads asking the kernel is dear
_EXACT = 6  # digits behind the point of what is kept, in seconds: it is also written down, as text
_now = time.perf_counter
_HIGH = 128  # descriptors from here on are not those that agents are known to close


@dataclass
class Measured:
    """What was measured about one agent of a world that has ended.

    Attributes:
        competitor: its own type.
        cpu, wall: seconds on stage, for each step in which it was there.
        exceptions: what it raised, in its callbacks and in its negotiators.
        peak: bytes resident in the worker when it left the stage, at most.
        grown: bytes by which they grew while it was there, all in all.
    """

    competitor: str
    cpu: array[float] = field(default_factory=lambda: array("d"))
    wall: array[float] = field(default_factory=lambda: array("d"))
    exceptions: int = 0
    peak: int = 0
    grown: int = 0


class _Scene(Note):
    """One actor in one of its methods, with the note that says so; the step is the number that stands beside it."""

    __slots__ = ("actor", "method")

    def __init__(self, actor: _Actor, method: str) -> None:
        self.actor, self.method = actor, method.rstrip("_")  # with which negmas marks its own wrappers
        super().__init__(head(actor.name, actor.agent, self.method), numbered=True)


class _Nobody(_Scene):
    """The world itself."""

    __slots__ = ()

    def __init__(self) -> None:
        Note.__init__(self, NOBODY)
        self.actor, self.method = _Actor("", ""), ""
        self.actor.proposes = self  # it stays what it is


class _Actor:
    """One agent, or whoever else may come on stage.

    Attributes:
        scenes: by the method, as it is called.
        proposes, responds: its scenes in the two methods that are entered most; ``None``: not yet made.
        calls: its scene in what ``World.call`` has called; ``None``: there is nothing in it.
        cpu, wall: seconds on stage in this step, until the kernel was last asked for the CPU time.
        unshared: seconds on stage since then.
    """

    __slots__ = ("agent", "calls", "cpu", "measured", "name", "proposes", "responds", "scenes", "unshared", "wall")

    def __init__(self, name: str, agent: str) -> None:
        self.name, self.agent = name, agent
        self.measured = Measured(name)
        self.scenes: dict[str, _Scene] = {}
        self.calls: dict[str, _Scene | None] = {}
        self.proposes: _Scene | None = None
        self.responds: _Scene | None = None
        self.cpu = self.wall = self.unshared = 0.0

    def close(self, step: int) -> None:
        """That step is over: keep what was measured in it, if it was there."""
        if self.wall and step != BEFORE:
            self.measured.cpu.append(round(max(0.0, self.cpu), _EXACT))
            self.measured.wall.append(round(self.wall, _EXACT))
        self.cpu = self.wall = 0.0

    def scene(self, method: str) -> _Scene:
        """It, in that method."""
        scenes = self.scenes
        return scenes[method] if method in scenes else self._enter(method)

    def called(self, agent: Any, method: Any) -> _Scene | None:
        """It, in that bound method, which the world calls for the first time; ``None``: there is nothing in it."""
        name = getattr(method, "__name__", "?")
        scene = self.calls[name] = None if is_empty(agent, method) else self.scene(name)
        return scene

    def _enter(self, method: str) -> _Scene:
        scene = self.scenes[method] = _Scene(self, method)
        if method == "propose":
            self.proposes = scene
        elif method == "respond":
            self.responds = scene
        return scene


class Watch:
    """Who is on stage, and what was measured, in one world set.

    Attributes:
        thread: the one that runs the world.
        step: of the world.
        actors: by the id of an agent or its controller.
        notes: where it is noted who is on stage.
        scene: who is there, in what.
        since: when it came there, or came back.
        due: when to :meth:`watch_the_clock` again.
    """

    def __init__(self, names: dict[type, str]) -> None:
        self.thread = threading.get_ident()
        self.step = BEFORE
        self.actors: dict[int, _Actor | None] = {}
        self._kept: list[Any] = []  # these, so that the ids stay theirs
        self._worlds: dict[int, Any] = {}
        self._names = dict(names)
        self.hook_callbacks: Callable[[type], None] = _pass  # set by what hooks the entries
        self.notes = notes()
        self._which, self._put = self.notes.which, self.notes.put
        self._nobody = _Nobody()
        self.scene: _Scene = self._nobody
        self._cast = [self._nobody.actor]  # all
        self.clock = _now
        self.since = self.clock()
        self._cpu, self._sampled = time.process_time(), self.since  # when the kernel was last asked
        self.due = self.since + _OFTEN
        self._threw: tuple[int, OnStage] | None = None
        self._statm = _open_statm()
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._resident = 0
        self.notes.number(BEFORE)
        self.notes.hold(self._nobody)

    # -- coming and going
    #
    # A world comes through here some thousand times a second, each time from code that has driven these lines out of
    # the processor's caches: a call costs ten times what it costs in a loop.  So the way in and the way out are written
    # out, and so is Notes.hold, here and in entries, where a mechanism asks its negotiators and a world its agents.

    def perform(self, actor: _Actor, method: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call what is the actor's, with it on stage; what passes until then is that of who was there before."""
        scenes = actor.scenes
        scene = scenes[method] if method in scenes else actor.scene(method)
        before, which, put = self.scene, self._which, self._put
        now = self.clock()
        before.actor.unshared += now - self.since
        if now > self.due:
            self.watch_the_clock(now)
        self.since, self.scene = now, scene
        which[WHICH] = scene.place or put(scene)
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            self.threw(error)
            raise
        finally:
            now = self.clock()
            actor.unshared += now - self.since
            if now > self.due:
                self.watch_the_clock(now)
            self.since, self.scene = now, before
            which[WHICH] = before.place or put(before)

    def watch_the_clock(self, now: float) -> None:
        """Some time has passed: lay it at the right doors, before the next one has its turn."""
        self.due = now + _OFTEN
        stayed = now - self.since
        if stayed <= _LONG and now - self._sampled < _SELDOM:
            return
        if stayed * self._share(now) > _BUSY:
            self.look(self.scene.actor)

    def _share(self, now: float) -> float:
        # The CPU time since the last time, shared out by the time that each has been there; returns CPU s in one s.
        cpu = time.process_time()
        rate = (cpu - self._cpu) / (now - self._sampled) if now > self._sampled else 0.0
        self._cpu, self._sampled, self.due = cpu, now, now + _OFTEN
        for actor in self._cast:
            stayed = actor.unshared
            if stayed:
                actor.cpu += stayed * rate
                actor.wall += stayed
                actor.unshared = 0.0
        return rate

    def look(self, actor: _Actor) -> None:
        """Measure what the process holds; what came on top since the last time is ``actor``'s."""
        if self._statm < 0:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):  # an agent may have closed it
            held = int(os.pread(self._statm, 64, 0).split()[1]) * self._page
            measured = actor.measured
            measured.peak = max(measured.peak, held)
            measured.grown += max(0, held - self._resident)
            self._resident = held

    def begin_step(self, step: int) -> None:
        """The world has come to another step."""
        self.settle()
        for actor in self._cast[1:]:
            actor.close(self.step)
        self.step = step
        self.notes.number(step)

    def settle(self) -> None:
        """Lay all that was measured until now at somebody's door."""
        now = self.clock()
        self.scene.actor.unshared += now - self.since
        self._share(now)
        self.since = now
        self.look(self.scene.actor)

    # -- who is who

    def meet(self, one: Any, world: Any = None) -> _Actor | None:
        """The actor that an agent is; ``None`` for what is no agent, such as a bulletin board."""
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
            self._cast.append(actor)
        self.actors[id(one)] = actor
        if own is not None:
            self._kept.append(own)
            self.actors[id(own)] = actor
        return actor

    def know(self, names: dict[type, str]) -> None:
        """By which names the configurations know these types."""
        self._names.update(names)
        self.notes.hold(self._nobody)

    def _name(self, kind: type) -> str:
        return self._names.get(kind) or f"{kind.__module__}.{kind.__name__}"

    def meet_negotiator(self, negotiator: Any) -> _Actor | None:
        """The actor whose negotiator that is: its owner, else its controller, else the negotiator itself."""
        try:  # where it stands: negotiators of controllers look up every name in Python
            one = object.__getattribute__(negotiator, "_Negotiator__owner")
        except AttributeError:
            one = getattr(negotiator, "owner", None)
        if one is None:
            one = getattr(negotiator, "parent", None) or negotiator
        key = id(one)
        return self.actors[key] if key in self.actors else self.meet(one)

    def newcomer(self, one: Any) -> _Actor:
        """The actor that an agent will be which is being made."""
        return _Actor(self._name(type(one)), "")

    # -- what went wrong

    def threw(self, error: BaseException) -> None:
        """An exception leaves whoever is on stage; the first one that it leaves has raised it."""
        scene = self.scene
        if scene is not self._nobody and (self._threw is None or self._threw[0] != id(error)):
            self._threw = (id(error), OnStage(scene.actor.name, scene.actor.agent, scene.method, self.step))

    def note_who_threw(self, error: BaseException | None) -> None:
        """The world ends with this exception: note who has raised it, if it came from the stage."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            if self._threw is not None and self._threw[0] == id(error):
                self.notes.hold(Note(self._threw[1].note()))
                return
            seen.add(id(error))
            error = error.__cause__ or error.__context__

    def measured(self) -> list[Measured]:
        """About each agent; the worlds have ended."""
        self.settle()
        actors = {id(actor): actor for actor in self.actors.values() if actor is not None and actor.agent}
        for actor in actors.values():
            actor.close(self.step)
            for world in self._worlds.values():
                for kind in ("agent_exceptions", "negotiator_exceptions"):
                    actor.measured.exceptions += len(getattr(world, kind, {}).get(actor.agent, ()))
        return [actor.measured for actor in actors.values()]

    def close(self) -> None:
        """Let go of everything."""
        with contextlib.suppress(OSError):  # an agent may have closed it, and the number be another file's
            if self._statm >= 0 and os.readlink(f"/proc/self/fd/{self._statm}").endswith("/statm"):
                os.close(self._statm)
        self.actors.clear()
        self._kept.clear()
        self._worlds.clear()


def _pass(kind: type) -> None:
    """Hook nothing."""


def _open_statm() -> int:
    """A descriptor of what the kernel says about our memory, with a number that is nobody else's; -1: there is none."""
    try:
        import fcntl

        low = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        finally:
            os.close(low)
    except (ImportError, OSError):
        return -1
