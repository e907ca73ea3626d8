"""Follows a program: looks at it again and again, remembers what has changed, and examines it when nothing does."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from resilient_exec.diagnosis import own, proc, remote, sockets, stacks
from resilient_exec.diagnosis.activity import activities
from resilient_exec.diagnosis.causes import diagnose
from resilient_exec.diagnosis.facts import Death, Process, Scene
from resilient_exec.diagnosis.limits import Limits
from resilient_exec.diagnosis.render import Finding
from resilient_exec.diagnosis.roles import HELPERS, with_roles
from resilient_exec.diagnosis.source import with_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilient_exec.diagnosis.facts import Pool, Thread
    from resilient_exec.diagnosis.told import Folder

__all__ = ["Follower"]

_QUIET_SHARE = 0.02  # of a core: what pools use to look whether something has happened
_QUIET_CPU = 0.05  # s: a tick or two of the kernel's clock
_QUIET_IO = 8192  # bytes
_MOST_STACKS = 64  # processes whose stacks are taken
_MUTE = 5.0  # s without a word, after which the thread in the program counts as held up


class Follower:
    """What is known of one program.

    Args:
        root: pid of the program.
        folder: where the probes in it write; ``None``: there are none.
    """

    def __init__(self, root: int, folder: Folder | None = None) -> None:
        self.root, self.folder = root, folder
        self.limits = Limits(root)
        self.py_spy = stacks.find_py_spy()
        self.began = time.monotonic()
        self.deaths: list[Death] = []
        self.rates: dict[int, float] = {}
        self._last: dict[int, Process] = {}
        self._last_at = self.began
        self._mark: dict[int, tuple[float, int]] = {}  # what each process had used when something last happened
        self._mark_at = self._progress_at = self.began
        self._done: dict[tuple[int, int], int] = {}
        self._births = self._kills = 0
        self._oom_victims: dict[int, str] = {}

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self) -> Scene | None:
        """The program now, without stacks; ``None``: it has ended."""
        now = time.monotonic()
        found = [process for pid in proc.members(self.root) if (process := proc.glance(pid)) is not None]
        if not any(process.pid == self.root and process.state not in "ZX" for process in found):
            return None
        pools = tuple(pool for process in found for pool in self._pools(process.pid))
        found = [self._named(process, now) for process in found]
        processes = with_roles(tuple(found), pools, self.root)
        self._see_changes(processes, pools, now)
        elapsed = max(now - self._last_at, 0.001)
        busy, moved = {}, {}
        for process in processes:
            before = self._last.get(process.pid)
            busy[process.pid] = max(0.0, process.cpu - (before.cpu if before else 0.0)) / elapsed
            if process.io is not None and before is not None and before.io is not None:
                moved[process.pid] = max(0, process.io - before.io)
        self._last, self._last_at = {process.pid: process for process in processes}, now
        return Scene(
            at=now,
            root=self.root,
            processes=processes,
            pools=pools,
            deaths=tuple(self.deaths),
            births=self._births,
            still=now - self._progress_at,
            idle=now - self._mark_at,
            busy=busy,
            reading=moved,
            oom_kills=self.limits.oom_kills(),
            oom_victims=self._victims(),
            throttled=self.limits.throttled(),
        )

    def _victims(self) -> dict[int, str]:
        if (kills := self.limits.oom_kills()) != self._kills:
            self._kills, self._oom_victims = kills, self.limits.oom_victims()
        return self._oom_victims

    def killed_for_memory(self) -> str:
        """Of a program that was ended by SIGKILL: what the kernel says; ``""``: it was not the kernel."""
        victims, kills = self.limits.oom_victims(), self.limits.oom_kills()
        if self.root in victims:
            return f"the kernel has killed the program for want of memory; its log says: {victims[self.root]}"
        if not kills or victims:
            return ""
        return "the kernel has killed for want of memory while the program ran: most likely it"

    def _pools(self, pid: int) -> tuple[Pool, ...]:
        return self.folder.pools(pid) if self.folder is not None else ()

    def _named(self, process: Process, now: float) -> Process:
        """With what the probe in it has said of itself, and I/O without the probe's own."""
        if self.folder is None:
            return process
        known = self._last.get(process.pid)
        if known is not None and known.version:
            version, is_forked, lost = known.version, known.is_forked, known.lost_threads
        else:
            hello = self.folder.read(process.pid, "hello")
            version, is_forked = tuple(hello.get("version", ())), bool(hello.get("forked"))
            lost = hello.get("lost_threads")
        heard = self.folder.heard_at(process.pid)
        io = None if process.io is None else max(0, process.io - self.folder.written(process.pid))
        is_heard = heard is None or now - heard < _MUTE
        return replace(process, version=version, is_forked=is_forked, lost_threads=lost, io=io, is_heard=is_heard)

    def _see_changes(self, processes: tuple[Process, ...], pools: tuple[Pool, ...], now: float) -> None:
        alive = {process.pid: process for process in processes}
        born = [pid for pid in alive if pid not in self._last]
        gone = [pid for pid, before in self._last.items() if pid not in alive or alive[pid].started != before.started]
        self._births += len(born)
        self._learn_exit_codes(processes)
        for pid in gone:
            self._bury(self._last[pid], now)
        if born or gone or self._has_worked(alive, now):
            self._mark, self._mark_at = {pid: (p.cpu, p.io or 0) for pid, p in alive.items()}, now
        done = {(pool.pid, pool.identity): pool.done or 0 for pool in pools}
        seconds = max(now - self._last_at, 0.001)
        for key, count in done.items():
            before = self._done.get(key, 0)
            rate = (count - before) / seconds if key in self._done else 0.0
            self.rates[key[1]] = 0.5 * self.rates.get(key[1], rate) + 0.5 * rate
            if count > before:
                self._mark_at = now
        if done != self._done:
            self._progress_at, self._births = now, 0
        self._done = done

    def _has_worked(self, alive: dict[int, Process], now: float) -> bool:
        allowed = _QUIET_CPU + _QUIET_SHARE * (now - self._mark_at)
        for pid, process in alive.items():
            cpu, io = self._mark.get(pid, (0.0, 0))
            if process.cpu - cpu > allowed or (process.io or 0) - io > _QUIET_IO:
                return True
        return False

    def _bury(self, process: Process, now: float) -> None:
        if self.folder is not None:
            self.folder.forget(process.pid)
        self.deaths.append(
            Death(
                pid=process.pid,
                at=now - self.began,
                role=process.role,
                parent=process.parent,
                exit_code=process.exit_code,
                age=process.age,
            )
        )
        del self.deaths[:-1000]

    def _learn_exit_codes(self, processes: tuple[Process, ...]) -> None:
        """Of the dead, from their parents, who have waited for them; and the last words of those that had some."""
        if self.folder is None:
            return
        known = {death.pid: at for at, death in enumerate(self.deaths)}
        for process in processes:
            for pid, code in self.folder.read(process.pid, "state").get("deaths", ()):
                at = known.get(pid)
                if at is not None and self.deaths[at].exit_code is None:
                    self.deaths[at] = replace(self.deaths[at], exit_code=code)
        for words in self.folder.fresh_deaths():
            pid, at = words["pid"], known.get(words["pid"])
            if at is None:
                role = "multiprocessing child"
                bare = Death(pid, time.monotonic() - self.began, role, words["parent"], 1, words["age"])
                self.deaths.append(bare)
                at = len(self.deaths) - 1
            position = words["position"]
            self.deaths[at] = replace(self.deaths[at], last_words=words["error"], position=position, exit_code=1)

    # -- examining -------------------------------------------------------------------------------------------------

    def examine(self, scene: Scene, stall: float) -> Finding:
        """Take everything that can be known of the program now, and say what it means.

        Args:
            scene: the last look.
            stall: s without any sign of life from which on it counts as hung, whatever the cause.
        """
        scene = self.with_stacks(scene)
        cause = diagnose(scene)
        if cause is not None:
            return Finding("stall", scene, cause)
        doing = tuple(activities(scene))
        if not doing and scene.unfinished and scene.idle < stall:
            doing = (f"something has happened {scene.idle:.1f} s ago (a process, some CPU or I/O)",)
        if doing:
            return Finding("active", scene, None, doing)
        return Finding("stall" if scene.unfinished else "quiet", scene)

    def with_stacks(self, scene: Scene) -> Scene:
        """The scene with threads, descriptors and stacks of all processes."""
        asked = self.folder.ask() if self.folder is not None else 0
        seen, unknown = [], list(scene.unknown)
        for at, bare in enumerate(scene.processes):
            process = self._without_ours(proc.look(bare))
            if process.role not in HELPERS and process.state != "Z" and at < _MOST_STACKS:
                known, problem = self._stacks(process, asked)
                process = stacks.merge(process, known)
                if problem:
                    unknown.append(f"the Python stacks of {process.title}: {problem}")
            seen.append(replace(process, threads=tuple(map(with_source, process.threads))))
        if len(scene.processes) > _MOST_STACKS:
            unknown.append(f"the stacks of {len(scene.processes) - _MOST_STACKS} more processes were not taken")
        if self.folder is None:
            unknown.append("the futures of its pools: that takes `resilient-exec watch -- COMMAND`")
        elif not any(process.version for process in seen):
            unknown.append(
                "the futures of its pools: no Python in the program has loaded our hook (python -I, -E or -S?)"
            )
        else:
            unknown += [text for process in seen for text in self.folder.problems(process.pid)]
        full = {
            thread.wait.target
            for process in seen
            for thread in process.threads
            if thread.wait.call in ("write", "writev", "sendto", "sendmsg")
        }
        other_ends = sockets.peers() if any(target.startswith("socket:") for target in full) else {}
        ends = {other_ends.get(target, target) for target in full if target.startswith("pipe:") or target in other_ends}
        readers = proc.pipe_ends(ends, frozenset(process.pid for process in seen))
        pools = tuple(
            replace(pool, is_fresh=self.folder is None or self.folder.has_answered(process.pid, asked))
            for process in seen
            for pool in self._pools(process.pid)
        )
        seen += self._born_since(scene, pools)
        more = {"unknown": tuple(unknown), "readers": readers, "peers": other_ends}
        return scene.with_(processes=tuple(seen), pools=pools or scene.pools, **more)

    def _born_since(self, scene: Scene, pools: tuple[Pool, ...]) -> list[Process]:
        """Return workers that the pools name by now, and which were not there yet when the processes were listed."""
        known = {process.pid for process in scene.processes}
        late = [proc.glance(pid) for pool in pools for pid in pool.workers if pid not in known]
        return [proc.look(process) for process in late if process is not None and process.state not in "ZX"]

    def _without_ours(self, process: Process) -> Process:
        own = self.folder.own_thread(process.pid) if self.folder is not None else 0
        return replace(process, threads=tuple(thread for thread in process.threads if thread.tid != own))

    def _stacks(self, process: Process, asked: int) -> tuple[dict[int, Thread], str]:
        """By the best way there is; what went wrong with all of them (``""``: nothing)."""
        if self.folder is not None and asked:
            told = self.folder.threads(process.pid, asked, self.folder.interval * 3 + 0.5)
            if told is not None:
                return told, ""
        problems = []
        for ask in self._ways(process):
            try:
                found, problem = ask()
            except OSError as error:  # the process has ended, or forbids it
                found, problem = {}, str(error)
            if found:
                return found, ""
            problems.append(problem)
        if problems and self.py_spy is None:
            problems.append("py-spy is not installed here: pip install 'resilient-exec[watch]'")
        if problems and (hint := stacks.handled_signals(process.pid)):
            problems.append(hint)
        return {}, "; ".join(filter(None, problems))

    def _ways(self, process: Process) -> Iterator[Callable[[], tuple[dict[int, Thread], str]]]:
        """py-spy, the handler of a worker of ours, that of our probe, ``sys.remote_exec``: where there may be one."""
        is_python = bool(process.version) or _is_python(process)
        if self.py_spy is not None and is_python:
            yield functools.partial(stacks.by_py_spy, self.py_spy, process.pid)
        if own.is_worker(process.pid):
            yield functools.partial(own.stacks, process.pid)
        elif self.folder is not None and process.version:
            yield functools.partial(stacks.by_signal, process, self.folder.path / "stacks")
        elif is_python and self.folder is None:  # under a watch it has our probe, or has just been born
            yield functools.partial(remote.by_remote_exec, process)


def _is_python(process: Process) -> bool:
    return any("python" in word.rpartition("/")[2] for word in process.command[:2])
