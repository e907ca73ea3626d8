"""What the kernel says: stopped, killed for want of memory, throttled, waiting for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient_exec.diagnosis.activity import asks
from resilient_exec.diagnosis.cause import Cause
from resilient_exec.diagnosis.causes.deaths import how, replaced
from resilient_exec.diagnosis.facts import describe_function
from resilient_exec.diagnosis.roles import HELPERS

if TYPE_CHECKING:
    from resilient_exec.diagnosis.facts import Scene

__all__ = ["out_of_memory", "stopped", "throttled", "waits_for_stdin"]

_SIGKILL = -9
_LITTLE = 0.2  # of a core, for the whole program


def stopped(scene: Scene) -> Cause | None:
    """A process of the program is stopped: by a signal, a terminal, or a debugger."""
    found = [process for process in scene.processes if process.state in ("T", "t")]
    if not found:
        return None
    evidence = []
    for process in found[:6]:
        tracer = (
            f"traced by process {process.tracer}"
            if process.tracer
            else "by a signal (SIGSTOP, SIGTSTP: Ctrl-Z, SIGTTIN)"
        )
        evidence.append(f"{process.title} is stopped ({process.state} in ps), {tracer}")
    pids = " ".join(str(process.pid) for process in found)
    remedy = (
        f"let it go on: kill -CONT {pids} (or fg in its shell; a debugger: detach it)",
        "a process in the background that reads from its terminal is stopped for it: give it </dev/null",
    )
    what = "the program is" if any(process.pid == scene.root for process in found) else "a process of the program is"
    return Cause("stopped", f"{what} stopped", tuple(evidence), remedy)


def out_of_memory(scene: Scene) -> Cause | None:
    """The kernel has killed for want of memory, and one of the program's processes died so."""
    killed = [death for death in scene.deaths if death.exit_code in (_SIGKILL, None) and death.role not in HELPERS]
    victims = scene.oom_victims
    if victims:
        killed = [death for death in killed if death.pid in victims]
    unseen = not scene.deaths and any(map(replaced, scene.pools))  # it died before there was a look at it
    if not scene.oom_kills or not (killed or unseen):
        return None
    times = "once" if scene.oom_kills == 1 else f"{scene.oom_kills} times"
    evidence = (
        f"the kernel's OOM killer has struck {times} since the watch began",
        "; ".join(how(death) for death in killed[-3:]) or "a pool has replaced a worker, which had died unseen",
        *(f"the kernel's log: {victims[death.pid]}" for death in killed[-3:] if death.pid in victims),
    )
    remedy = (
        "fewer workers, or smaller tasks; more memory for the container (memory.max), or for the machine",
        "a limit for each task, so that one is named and the others go on: ResilientPool(memory_limit='2GiB')",
    )
    return Cause("out-of-memory", "the kernel has killed a process of the program for want of memory", evidence, remedy)


def throttled(scene: Scene) -> Cause | None:
    """The cgroup lets the program have next to no CPU or memory."""
    if not scene.throttled or sum(scene.busy.values()) > _LITTLE:
        return None  # who has more threads than CPUs to run them is throttled, too, and uses all that it may
    remedy = (
        "give the container or unit more (cpu.max, memory.high; Kubernetes: limits), or ask for less: fewer workers",
    )
    return Cause("throttled", "the program's cgroup slows it down to next to nothing", (scene.throttled,), remedy)


def waits_for_stdin(scene: Scene) -> Cause | None:
    """A worker or child, not the program itself, reads its standard input, and that is no terminal (a prompt)."""
    if not scene.unfinished:
        return None
    for process in scene.processes:
        for thread in process.threads:
            if process.pid != scene.root and asks(thread) and thread.wait.target.startswith("pipe:"):
                evidence = (
                    f"{process.title} reads its standard input ({thread.wait.target}) in {describe_function(thread)}",
                )
                remedy = (
                    "let tasks ask nothing: input(), a debugger's prompt, a password; or give the program </dev/null",
                    "what a task starts has the program's stdin: subprocess.run(..., stdin=subprocess.DEVNULL)",
                )
                return Cause("waits-for-stdin", "a worker waits for its standard input", evidence, remedy)
    return None
