"""What the kernel has done to the program's cgroup and to the machine since the watch began: kills, throttling."""

from __future__ import annotations

import re
import time
from pathlib import Path

from resilient_exec.process.memory import oom_log

__all__ = ["Limits", "folders_of"]

_HALF = 0.5  # of the time: from there on it is next to no CPU, or memory
_OOM_FILES = ("memory.events", "memory.oom_control")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str, name: str) -> int | None:
    match = re.search(rf"^{name}\s+(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else None


def folders_of(pid: int) -> list[Path]:
    """The cgroup folders of a process, of both versions, those that are seen here."""
    return _folders(_read(Path(f"/proc/{pid}/cgroup")))


def _folders(text: str) -> list[Path]:
    found = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        names = [f"/sys/fs/cgroup/{name}" for name in controllers.split(",")] if controllers else []
        for top in names or ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]:
            folder = Path(top + path)
            found += [folder if folder.is_dir() else Path(top)]
    return found


def _kills_of_machine() -> int:
    """Processes that the kernel has killed for want of memory since it was started."""
    return _number(_read(Path("/proc/vmstat")), "oom_kill") or 0


class Limits:
    """The counters of one process's cgroups, compared with those at the beginning.

    A process may be moved to another cgroup while it is watched (by the command that starts it).  That is seen a little
    later, and somebody may have been killed there meanwhile: of the kills that the other one counts, as many are new as
    the whole machine has had since the beginning.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._text = pid, ""
        self._folders: list[Path] = []
        self._kills = self._machine_kills = 0
        self._cpu: tuple[float, float] | None = None
        self.share = 0.0  # of the time since the last look, for which the cgroup was throttled
        self._follow()

    def _follow(self) -> None:
        text = _read(Path(f"/proc/{self._pid}/cgroup"))
        if text and text != self._text:
            is_first, before = not self._text, self.oom_kills() if self._text else 0
            self._text, self._folders = text, _folders(text)
            count = self._count_kills()
            if is_first:
                self._machine_kills = _kills_of_machine()
            self._kills = count - max(before, min(before + count, _kills_of_machine() - self._machine_kills))
            self._cpu, self.share = None, 0.0

    def _count_kills(self) -> int:
        counts = [_number(_read(folder / name), "oom_kill") for folder in self._folders for name in _OOM_FILES]
        known = [count for count in counts if count is not None]
        return sum(known) if known else _kills_of_machine()

    def oom_kills(self) -> int:
        """Processes of these cgroups that the kernel has killed for want of memory, since the beginning."""
        return max(0, self._count_kills() - self._kills)

    def oom_victims(self) -> dict[int, str]:
        """Whom the kernel's log names as killed for want of memory since the beginning: pid and line.

        Empty where the log cannot be read (an ordinary user, a container).
        """
        since = _kills_of_machine() - self._machine_kills
        return {pid: line for line, pid in oom_log()[-since:]} if since > 0 else {}

    def throttled(self) -> str:
        """How the cgroup holds the program up, in words; ``""``: not much."""
        self._follow()
        return self._throttled_in_memory() or self._throttled_in_cpu()

    def _throttled_in_memory(self) -> str:
        for folder in self._folders:
            if _number(_read(folder / "memory.oom_control"), "under_oom"):
                return (
                    f"its cgroup has no memory left, and may not kill for it ({folder}/memory.oom_control: under_oom 1)"
                )
            high = _read(folder / "memory.high").strip()
            waiting = re.search(r"^full avg10=([\d.]+)", _read(folder / "memory.pressure"), re.MULTILINE)
            if high.isdigit() and waiting and float(waiting[1]) >= _HALF * 100:
                used = _read(folder / "memory.current").strip()
                return (
                    f"its cgroup has stood still for want of memory for {float(waiting[1]):.0f}% of the last 10 s "
                    f"({folder}: memory.current {used}, memory.high {high})"
                )
        return ""

    def _throttled_in_cpu(self) -> str:
        now, seconds, periods = time.monotonic(), 0.0, ""
        for folder in self._folders:
            text = _read(folder / "cpu.stat")
            micro, nano = _number(text, "throttled_usec"), _number(text, "throttled_time")
            if micro is not None or nano is not None:
                seconds = max(seconds, micro / 1e6 if micro is not None else (nano or 0) / 1e9)
                periods = f"{folder / 'cpu.stat'}: nr_throttled {_number(text, 'nr_throttled')}"
        before, self._cpu = self._cpu, (now, seconds)
        if before is not None and now - before[0] < 1.0:
            self._cpu = before
        elif before is not None:
            self.share = min(1.0, (seconds - before[1]) / (now - before[0]))  # the kernel adds up all CPUs
        return f"its cgroup was denied the CPU for {self.share:.0%} of the last seconds ({periods})" * (
            self.share > _HALF
        )
