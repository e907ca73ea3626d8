"""What the kernel has done to the program's cgroup and to the machine since the watch began: kills, throttling."""

from __future__ import annotations

import re
import time
from pathlib import Path

__all__ = ["Limits", "folders_of"]

_HALF = 0.5  # of the time: from there on it is next to no CPU


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
    found = []
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        names = [f"/sys/fs/cgroup/{name}" for name in controllers.split(",")] if controllers else []
        for top in names or ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]:
            folder = Path(top + path)
            found += [folder if folder.is_dir() else Path(top)]
    return found


class Limits:
    """The counters of one process's cgroups, compared with those at the beginning."""

    def __init__(self, pid: int) -> None:
        self._folders = folders_of(pid)
        self._kills = self._count_kills()
        self._cpu: tuple[float, float] | None = None
        self.share = 0.0  # of the time since the last look, for which the cgroup was throttled

    def _count_kills(self) -> int:
        counts = [_number(_read(folder / name), "oom_kill") for folder in self._folders for name in _OOM_FILES]
        known = [count for count in counts if count is not None]
        return sum(known) if known else _number(_read(Path("/proc/vmstat")), "oom_kill") or 0

    def oom_kills(self) -> int:
        """Processes of these cgroups that the kernel has killed for want of memory, since the beginning."""
        return max(0, self._count_kills() - self._kills)

    def throttled(self) -> str:
        """How the cgroup holds the program up, in words; ``""``: not much."""
        now, seconds, periods = time.monotonic(), 0.0, ""
        for folder in self._folders:
            text = _read(folder / "cpu.stat")
            micro, nano = _number(text, "throttled_usec"), _number(text, "throttled_time")
            if micro is not None or nano is not None:
                seconds = max(seconds, micro / 1e6 if micro is not None else (nano or 0) / 1e9)
                periods = f"{folder / 'cpu.stat'}: nr_throttled {_number(text, 'nr_throttled')}"
        before, self._cpu = self._cpu, (now, seconds)
        if before is None or now - before[0] < 1.0:
            if before is not None:
                self._cpu = before
            return self._words(periods) if self.share > _HALF else ""
        self.share = (seconds - before[1]) / (now - before[0])
        return self._words(periods) if self.share > _HALF else ""

    def _words(self, periods: str) -> str:
        return f"its cgroup was denied the CPU for {self.share:.0%} of the last seconds ({periods})"


_OOM_FILES = ("memory.events", "memory.oom_control")
