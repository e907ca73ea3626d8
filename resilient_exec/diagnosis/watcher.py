"""The loop of ``resilient-exec watch``: follows a program until it ends, tells what it sees, reports a stall."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resilient_exec.diagnosis import proc, render
from resilient_exec.diagnosis.follow import Follower
from resilient_exec.diagnosis.told import Folder
from resilient_exec.process.tree import Identity, end_tree, identify, is_alive, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resilient_exec.diagnosis.facts import Scene
    from resilient_exec.diagnosis.render import Finding

__all__ = ["STALLED", "Settings", "prepare", "start", "watch"]

STALLED = 75  # exit status
_TICK = 1.0  # s, at most, between two looks
_HOOKS = Path(__file__).parent / "hooks"
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_GRACE = 5.0  # s between two ways of ending the program
_AGAIN = 1.5  # times as long until a program that is still is examined again: evidence may come with time
_SAY_AGAIN = 4.0  # times as long until the same is said again of a program that does not hang


@dataclass(frozen=True)
class Settings:
    """What the command was asked for; times in seconds."""

    every: float = 10.0
    stall: float = 30.0
    exit_on_stall: bool = False
    report: Path | None = None
    log: Path | None = None
    say: Callable[[str], None] = print

    @property
    def tick(self) -> float:
        """Between two looks."""
        return max(0.05, min(_TICK, self.every / 2, self.stall / 4))


@contextlib.contextmanager
def prepare(settings: Settings) -> Iterator[tuple[Folder, dict[str, str]]]:
    """A folder for the probes, and the variables that bring them into a program; the folder is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="resilient-watch-"))
    try:
        folder = Folder(path, settings.tick)
        me = os.getpid()
        python_path = os.pathsep.join([str(_HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {
            "RESILIENT_WATCH": f"{path}|{settings.tick}|{me} {proc.start_time(me)}",
            "PYTHONPATH": python_path,
        }
        yield folder, variables
    finally:
        shutil.rmtree(path, ignore_errors=True)


def start(command: Sequence[str], settings: Settings) -> int:
    """Start the program with our hooks, watch it, and end as it does; the exit status, negative for a signal.

    Raises:
        OSError: it cannot be started.
    """
    with prepare(settings) as (folder, variables), _signals_to_the_program() as receiver:
        process = subprocess.Popen(list(command), env={**os.environ, **variables})
        receiver.is_started(process.pid)
        try:
            with contextlib.ExitStack() as log:
                follower = Follower(process.pid, folder)
                status = _follow(follower, settings, log, lambda: process.poll() is not None)
                if process.poll() == -signal.SIGKILL and status != STALLED and (why := follower.killed_for_memory()):
                    settings.say(why)
        except Exception as error:  # a fault of ours is no reason to leave the program alone with its exit status
            settings.say(f"watch has failed and looks no more, the program goes on: {type(error).__name__}: {error}")
            status = 0
        process.wait()
        receiver.pid = None
        return STALLED if status == STALLED else process.returncode


def watch(pid: int, settings: Settings) -> int:
    """Follow a program that runs already, until it ends; 0, or 75 where a stall ended it."""
    who = identify(pid)
    with contextlib.ExitStack() as log:
        return _follow(Follower(pid), settings, log, lambda: who is None or not is_alive(who))


class _Receiver:
    """The program, to which signals are passed on; one that comes while it is being started, once it has been."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self._early: list[int] = []

    def handle(self, number: int, _: Any) -> None:
        """Pass it on, or keep it."""
        if self.pid is None:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def is_started(self, pid: int) -> None:
        """Take note of the program, and pass on what was kept."""
        self.pid = pid
        for number in self._early:
            self.handle(number, None)


@contextlib.contextmanager
def _signals_to_the_program() -> Iterator[_Receiver]:
    """Ctrl-C reaches the program by itself, and must not end us before it; what is sent to us alone is passed on."""
    receiver = _Receiver()
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGQUIT"):
        number = getattr(signal, name, None)
        # A handler, and not SIG_IGN, which the program would inherit; what is ignored already stays so for both.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: None)
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, receiver.handle)
    try:
        yield receiver
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Told:
    """What has been said already, so that nothing is said twice."""

    def __init__(self, stall: float) -> None:
        self.stall = stall
        self.progress = -1.0
        self.due = stall
        self.is_reported = False
        self._said: tuple[str, float] = ("", 0.0)

    def is_news(self, finding: Finding) -> bool:
        """Whether it is worth a word: a stall, another kind of finding than the last, or much later."""
        scene = finding.scene
        seconds = scene.still if scene.unfinished else scene.idle
        if finding.kind == self._said[0] and self._said[1] <= seconds < self._said[1] * _SAY_AGAIN:
            return False
        self._said = (finding.kind, seconds)
        return True

    def is_due(self, scene: Scene) -> bool:
        """Whether the program has stood still long enough to be examined, again or for the first time."""
        seconds = scene.still if scene.unfinished else scene.idle
        since = scene.at - seconds
        if abs(since - self.progress) > 0.001:
            self.progress, self.due, self.is_reported = since, self.stall, False
        return seconds >= self.due and not self.is_reported

    def later(self, scene: Scene) -> None:
        """Examine it again when it has stood still for some times as long."""
        self.due = (scene.still if scene.unfinished else scene.idle) * _AGAIN


def _follow(follower: Follower, settings: Settings, log: contextlib.ExitStack, has_ended: Callable[[], bool]) -> int:
    told = _Told(settings.stall)
    file = log.enter_context(settings.log.open("a", encoding="utf-8")) if settings.log is not None else None
    say_at = follower.began + settings.every
    while not has_ended():
        scene = follower.look()
        if scene is None:
            if has_ended():
                break
            time.sleep(settings.tick / 4)
            continue
        if scene.at >= say_at:
            say_at = scene.at + settings.every
            _tell(follower, scene, settings, file)
        if told.is_due(scene):
            finding = follower.examine(scene, settings.stall)
            if told.is_news(finding) or finding.kind == "stall":
                _report(finding, follower, settings, file)
            told.later(scene)
            if finding.kind == "stall":
                told.is_reported = True
                if settings.exit_on_stall:
                    settings.say("ending the program (--exit-on-stall)")
                    _end(follower.root, has_ended)
                    return STALLED
        _sleep(settings.tick, has_ended)
    return 0


def _sleep(seconds: float, has_ended: Callable[[], bool]) -> None:
    """Until the next look; the program's end is not waited for longer than it takes to notice."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not has_ended():
        time.sleep(min(left, 0.05))


def _tell(follower: Follower, scene: Scene, settings: Settings, file: IO[str] | None) -> None:
    elapsed, load = scene.at - follower.began, os.getloadavg()[0]
    settings.say(render.line(scene, elapsed, load, follower.rates))
    if file is not None:
        detailed = scene.with_(processes=tuple(proc.look(process) for process in scene.processes))
        _log(file, {"event": "look", **render.as_json(detailed, elapsed, load, follower.rates)})


def _log(file: IO[str], values: dict[str, Any]) -> None:
    file.write(json.dumps({"time": time.time(), **values}) + "\n")
    file.flush()


def _report(finding: Finding, follower: Follower, settings: Settings, file: IO[str] | None) -> None:
    scene = finding.scene
    settings.say(render.plain(finding) if finding.kind == "stall" else f"{finding.kind}: {finding.sentence}")
    if file is not None:
        cause = finding.cause
        values = render.as_json(scene, scene.at - follower.began, os.getloadavg()[0], follower.rates)
        named = {"cause": cause.name, "evidence": cause.evidence, "remedy": cause.remedy} if cause is not None else {}
        _log(file, {"event": finding.kind, "sentence": finding.sentence, **named, **values})
    if settings.report is not None:
        settings.report.write_text(render.markdown(finding, _context(scene, follower)), encoding="utf-8")
        settings.say(f"the report is in {settings.report}")


def _context(scene: Scene, follower: Follower) -> list[str]:
    import platform

    root = scene.process(scene.root)
    version = ".".join(map(str, root.version)) if root is not None and root.version else "not known"
    command = " ".join(root.command) if root is not None else "?"
    return [
        f"command: `{command}`",
        (
            f"Python {version}, {platform.system()} {platform.release()}, {os.cpu_count()} CPUs, load "
            f"{os.getloadavg()[0]:.1f}"
        ),
        (
            f"watched for {scene.at - follower.began:.0f} s; no future done for {scene.still:.0f} s, nothing "
            "at all for "
            f"{scene.idle:.0f} s"
        ),
    ]


def _end(root: int, has_ended: Callable[[], bool]) -> None:
    """SIGINT, then SIGTERM, then SIGKILL, with time between; then what the program has left behind."""
    kin = tree(root)
    for number in (signal.SIGINT, signal.SIGTERM):
        if has_ended():
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(root, number)
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline and not has_ended():
            kin |= tree(root)
            time.sleep(0.05)
    me = identify(root)
    end_tree(lambda: _still(kin | ({me} if me is not None and not has_ended() else set())), _GRACE)


def _still(kin: set[Identity]) -> set[Identity]:
    return {who for who in kin if is_alive(who)}


def say(text: str) -> None:
    """To stderr, each line marked as ours; nobody there to read is no reason to end."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("".join(f"watch: {line}\n" for line in text.splitlines()))
        sys.stderr.flush()
