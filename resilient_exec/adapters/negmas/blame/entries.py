"""Where the code of agents is entered: functions of negmas, and ``__init__`` of agents, hooked for :mod:`.blame.stage`.

They are replaced for as long as one world set runs, and then put back.  Each stand-in is a few lines, because a world
passes through them some thousand times a second.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from threading import get_ident
from types import FunctionType
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.blame.notes import NOT_THEIRS, OnStage
from resilient_exec.adapters.negmas.blame.stage import Watch
from resilient_exec.wire.register import WHICH, Note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


__all__ = ["classes", "hook", "hooked", "missing"]

_DIRECT = ("__init__", "before_step")  # which worlds call without any of negmas' functions in between


def classes(watch: Watch, types: Iterable[str]) -> dict[type, str]:
    """The classes of these names, by which the configurations know them; importing one may kill the process."""
    from negmas.helpers import get_class

    found: dict[type, str] = {}
    for name in dict.fromkeys(types):
        watch.notes.hold(Note(OnStage(name, method="import").note()))
        with contextlib.suppress(Exception):  # the world will say so, in negmas' words
            found[get_class(name)] = name
    return found


def hook(watch: Watch, names: dict[type, str], undo: contextlib.ExitStack) -> None:
    """Replace all entries until ``undo`` is closed; those that this negmas does not have (:func:`missing`) stay out."""
    for owner, name, make in _entries():
        kind = _kind(owner)
        if name in vars(kind):
            _replace(kind, name, make(watch, vars(kind)[name]), undo)
    for base, name in _answers():
        _replace(base, name, _answer(watch, vars(base)[name]), undo)
    watch.hook_callbacks = _Callbacks(watch, undo).hook
    for kind in names:
        for name in _DIRECT:
            with contextlib.suppress(Exception):  # there is none, or a metaclass does not allow it
                _replace(kind, name, _direct(watch, getattr(kind, name)), undo)
        watch.hook_callbacks(kind)


def missing() -> tuple[str, ...]:
    """The entries that this negmas does not have: whose code is entered there will not be known."""
    return tuple(f"{owner}.{name}" for owner, name, _ in _entries() if name not in vars(_kind(owner)))


def hooked() -> list[tuple[Any, str]]:
    """The functions of negmas that :func:`hook` replaces: their classes and names."""
    kinds = [(_kind(owner), name) for owner, name, _ in _entries()]
    return [(kind, name) for kind, name in [*kinds, *_answers()] if name in vars(kind)]


def _entries() -> tuple[tuple[str, str, Callable[[Watch, Any], Any]], ...]:
    return (
        ("negmas.situated.World", "call", _call),
        ("negmas.sao.SAOMechanism", "_safe_counter", _safe_counter),
        ("negmas.mechanisms.Mechanism", "add", _add),
    )


def _kind(owner: str) -> Any:
    """The class of that name; one without anything, where this negmas has none."""
    module, _, name = owner.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return object


def _replace(owner: Any, name: str, stand_in: Any, undo: contextlib.ExitStack) -> None:
    own = vars(owner).get(name)
    setattr(owner, name, stand_in)
    if own is None:
        undo.callback(delattr, owner, name)
    else:
        undo.callback(setattr, owner, name, own)


def _answers() -> list[tuple[type, str]]:
    """Where negmas asks one that has responded for an offer, in the classes that its negotiators have in common."""
    try:
        from negmas.sao.negotiators import base
    except ImportError:
        return []
    kinds = {kind for kind in vars(base).values() if isinstance(kind, type) and kind.__module__ == base.__name__}
    return [(kind, "propose_") for kind in kinds if "propose_" in vars(kind)]


def _call(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    actors, thread, clock = watch.actors, watch.thread, watch.clock
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def call(self: Any, agent: Any, method: Any, *args: Any, **kwargs: Any) -> Any:  # names of negmas, for keywords
        if get_ident() != thread:
            return original(self, agent, method, *args, **kwargs)
        key = id(agent)
        actor = actors[key] if key in actors else watch.meet(agent, self)
        if actor is None:
            return original(self, agent, method, *args, **kwargs)
        name, calls = getattr(method, "__name__", "?"), actor.calls
        scene = calls[name] if name in calls else actor.called(agent, method)
        if scene is None:
            return original(self, agent, method, *args, **kwargs)
        step = self.current_step
        if step != watch.step:
            watch.begin_step(step)
        before = watch.scene  # from here on it is Watch.perform, written out
        now = clock()
        before.actor.unshared += now - watch.since
        if now > watch.due:
            watch.watch_the_clock(now)
        watch.since, watch.scene = now, scene
        which[WHICH] = scene.place or put(scene)
        try:
            return original(self, agent, method, *args, **kwargs)
        except BaseException as error:
            watch.threw(error)
            raise
        finally:
            now = clock()
            actor.unshared += now - watch.since
            if now > watch.due:
                watch.watch_the_clock(now)
            watch.since, watch.scene = now, before
            which[WHICH] = before.place or put(before)

    return call


def _safe_counter(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    actors, thread, look_up, clock = watch.actors, watch.thread, object.__getattribute__, watch.clock
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def safe_counter(mechanism: Any, negotiator: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != thread:
            return original(mechanism, negotiator, state, *args, **kwargs)
        try:  # where it stands: negotiators of controllers look up every name in Python
            actor = actors[id(look_up(negotiator, "_Negotiator__owner"))]
        except (AttributeError, KeyError):
            actor = watch.meet_negotiator(negotiator)
        if actor is None:
            return original(mechanism, negotiator, state, *args, **kwargs)
        if state.current_offer is None:
            scene = actor.proposes or actor.scene("propose")
        else:
            scene = actor.responds or actor.scene("respond")
        before = watch.scene  # from here on it is Watch.perform, written out
        now = clock()
        before.actor.unshared += now - watch.since
        if now > watch.due:
            watch.watch_the_clock(now)
        watch.since, watch.scene = now, scene
        which[WHICH] = scene.place or put(scene)
        try:
            return original(mechanism, negotiator, state, *args, **kwargs)
        except BaseException as error:
            watch.threw(error)
            raise
        finally:
            now = clock()
            actor.unshared += now - watch.since
            if now > watch.due:
                watch.watch_the_clock(now)
            watch.since, watch.scene = now, before
            which[WHICH] = before.place or put(before)

    return safe_counter


def _answer(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    # No entry of its own: who answers is on stage already, and what it is asked for is only now known exactly.
    which, put = watch.notes.which, watch.notes.put

    @functools.wraps(original)
    def propose(*args: Any, **kwargs: Any) -> Any:
        before = watch.scene
        scene = before.actor.proposes or before.actor.scene("propose")
        if scene is before:
            return original(*args, **kwargs)
        watch.scene = scene
        which[WHICH] = scene.place or put(scene)
        try:
            return original(*args, **kwargs)
        finally:
            watch.scene = before
            which[WHICH] = before.place or put(before)

    return propose


def _add(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def add(mechanism: Any, negotiator: Any, *args: Any, **kwargs: Any) -> Any:
        actor = watch.meet_negotiator(negotiator) if get_ident() == watch.thread else None
        if actor is None:
            return original(mechanism, negotiator, *args, **kwargs)
        watch.hook_callbacks(type(negotiator))
        watch.hook_callbacks(type(getattr(negotiator, "parent", None)))
        return watch.perform(actor, "join", original, (mechanism, negotiator, *args), kwargs)

    return add


class _Callbacks:
    """Hooks what a mechanism calls of a negotiator or a controller (``on_negotiation_start`` and the like).

    It is hooked in the classes that have something of their own there.  Most have not: to look at each call cost as
    much as all other entries together, since two are made for each negotiator in each round.
    """

    def __init__(self, watch: Watch, undo: contextlib.ExitStack) -> None:
        self._watch, self._undo = watch, undo
        self._seen: set[type] = set()

    def hook(self, kind: type) -> None:
        """Hook the callbacks of that class and its bases which are neither negmas' nor scml's, each once."""
        if kind in self._seen:
            return
        for base in kind.__mro__:
            if base in self._seen or base.__module__.startswith(NOT_THEIRS):
                continue
            for name, function in list(vars(base).items()):
                is_callback = name.startswith("on_") and isinstance(function, FunctionType)
                if is_callback and not (function.__module__ or "").startswith(NOT_THEIRS):
                    with contextlib.suppress(Exception):  # a metaclass does not allow it
                        _replace(base, name, _callback(self._watch, function), self._undo)
        self._seen.update(kind.__mro__)


def _callback(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    name = original.__name__

    @functools.wraps(original)
    def callback(one: Any, *args: Any, **kwargs: Any) -> Any:
        actor = watch.meet_negotiator(one) if get_ident() == watch.thread else None
        if actor is None:
            return original(one, *args, **kwargs)
        return watch.perform(actor, name, original, (one, *args), kwargs)

    return callback


def _direct(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    name = original.__name__

    @functools.wraps(original)
    def direct(one: Any, *args: Any, **kwargs: Any) -> Any:
        if get_ident() != watch.thread:
            return original(one, *args, **kwargs)
        actor = watch.actors.get(id(one)) or watch.newcomer(one)
        return watch.perform(actor, name, original, (one, *args), kwargs)

    return direct


@contextlib.contextmanager
def watch(types: list[str]) -> Iterator[Watch]:
    """Have all that comes on stage noted and measured in this process, until the block ends.

    Args:
        types: full names of the agents' own types.
    """
    watching = Watch({})
    with contextlib.ExitStack() as stack:
        stack.callback(watching.close)
        names = classes(watching, types)
        watching.know(names)
        hook(watching, names, stack)
        try:
            yield watching
        except BaseException as error:
            watching.note_who_threw(error)
            raise
