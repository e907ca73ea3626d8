"""Has a running program tell its stacks and pools by itself: ``sys.remote_exec`` of Python 3.14 and later.

The program's own interpreter is started once more to ask (the versions must be the same), and the program's main thread
runs a script of ours when it next runs Python code.  One that waits in a call does not; what it was asked to run is
then replaced by a file that does nothing, which stays installed: nothing of ours is left to be found missing later.
"""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exec.diagnosis.told import frames_of

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Process, Thread

__all__ = ["by_remote_exec"]

_FOLDER = Path(__file__).parent
_NOTHING = _FOLDER / "hooks" / "nothing.py"
_ASK = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])"
_SCRIPT = """\
def _resilient_exec_tells(path, source):
    import sys
    names = {{"__name__": "resilient_exec_probe_pools", "__file__": source}}
    with open(source, "rb") as file:
        exec(compile(file.read(), source, "exec"), names)
    threading = sys.modules.get("threading")
    by_ident = dict(getattr(threading, "_active", {{}}))
    told = [names["thread_facts"](i, by_ident.get(i), f) for i, f in sys._current_frames().items()]
    with open(path + ".new", "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(repr(told))
    import os
    os.rename(path + ".new", path)

try:
    _resilient_exec_tells({path!r}, {source!r})
except Exception:
    pass
finally:
    del _resilient_exec_tells
"""


def by_remote_exec(process: Process, timeout: float = 1.0) -> tuple[dict[int, Thread], str]:
    """The threads by number, and what went wrong (``""``: nothing)."""
    with tempfile.TemporaryDirectory(prefix="resilient-ask-") as folder:
        answer, script = Path(folder, "answer"), Path(folder, "script.py")
        os.chmod(folder, 0o755)  # noqa: S103  the program may be another user's; nothing secret is in it
        script.write_text(_SCRIPT.format(path=str(answer), source=str(_FOLDER / "probe_pools.py")), encoding="utf-8")
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.geteuid() == 0 and (owner := os.stat(f"/proc/{process.pid}").st_uid):
                os.chown(folder, owner, -1)
        if not _ask(process.pid, script):
            return {}, "its Python has no sys.remote_exec (3.14 and later), or it is not allowed"
        deadline = time.monotonic() + timeout
        while not answer.exists():
            if time.monotonic() >= deadline:
                _ask(process.pid, _NOTHING)
                return {}, f"its main thread did not run Python code for {timeout:g} s"
            time.sleep(0.01)
        told: list[dict[str, Any]] = ast.literal_eval(answer.read_text(encoding="utf-8"))
    threads = [_without_ours(frames_of(thread)) for thread in told]
    return {thread.tid or process.pid: thread for thread in threads}, ""


def _without_ours(thread: Thread) -> Thread:
    """Without the frames of the script that asked."""
    ours = next((at for at, frame in enumerate(thread.frames) if frame.name == "_resilient_exec_tells"), None)
    return thread if ours is None else replace(thread, frames=thread.frames[ours + 2 :])


def _ask(pid: int, script: Path) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [f"/proc/{pid}/exe", "-I", "-S", "-c", _ASK, str(pid), str(script)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
        return done.returncode == 0
    return False
