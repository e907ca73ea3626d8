"""What the probe reads in a watched program: its pools' tables, and its threads' frames.

Loaded by the probe (probe.py) with the program's first thread, in no module that the program could see.
Each pool is read by the names that its library gives to its tables: where one is missing in some version, that pool is
told with an ``error``, and nothing else suffers.

Longer than 400 lines: it is loaded as one text, since a second one would be read in each program that has a pool.
"""

import sys

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from typing import Any

_sys_modules = sys.modules
time = _sys_modules["time"]

_MOST_FRAMES = 100
_MOST_ITEMS = 20_000  # of a pool's table, looked at one by one
_LOCKS = ("lock", "RLock", "_RLock", "Condition", "Semaphore", "BoundedSemaphore", "Lock")


def thread_facts(ident: "Any", thread: "Any", frame: "Any") -> "Any":
    """Name, numbers and frames of a thread, the innermost first."""
    told: list[Any] = []
    while frame is not None and len(told) < _MOST_FRAMES:
        code = frame.f_code
        told.append((code.co_filename, frame.f_lineno or 0, getattr(code, "co_qualname", code.co_name), _more(frame)))
        frame = frame.f_back
    return {
        "ident": ident,
        "tid": getattr(thread, "_native_id", None),
        "name": getattr(thread, "_name", None),
        "daemon": getattr(thread, "_daemonic", None),
        "frames": told,
    }


def _more(frame: "Any") -> "Any":
    """Of a frame: the locks that its names mean, the future that it waits for, a limit on the wait, a folder."""
    code, more = frame.f_code, {}
    try:
        values = frame.f_locals
        if locks := _locks(code, values, frame.f_globals):
            more["locks"] = locks
            more["column"] = _column(frame)
        owner = values.get("self")
        if (
            code.co_name in ("result", "exception")
            and code.co_filename.endswith("_base.py")
            and hasattr(owner, "_state")
        ):
            more["future"] = (id(owner), owner._state)
        if "timeout" in values and (values["timeout"] is None or type(values["timeout"]) in (int, float)):
            more["timeout"] = values["timeout"]
        if "negmas" in code.co_filename:
            paths = [values[name] for name in ("tournament_path", "path") if values.get(name) is not None]
            if paths:
                more["path"] = str(paths[0])[:400]
    except Exception:  # a value that does not like to be looked at
        pass
    return more


def _column(frame: "Any") -> "Any":
    """Where on its line it stands: of two locks on one line the thread waits for one."""
    for number, place in enumerate(frame.f_code.co_positions()):
        if number == frame.f_lasti // 2:
            return place[2]
    return None


def _locks(code: "Any", values: "Any", others: "Any") -> "Any":
    """The locks among local values, their attributes and the module's names, of those that the code mentions."""
    locks = []
    for name, value in list(values.items()):
        if type(value).__name__ in _LOCKS:
            locks.append(_lock(name, value))
        elif attributes := _dict_of(value):
            found = {attribute: attributes.get(attribute) for attribute in code.co_names}
            locks += [_lock(name + "." + a, lock) for a, lock in found.items() if type(lock).__name__ in _LOCKS]
    found = {name: others.get(name) for name in code.co_names if name not in values}
    locks += [_lock(name, lock) for name, lock in found.items() if type(lock).__name__ in _LOCKS]
    return locks[:20]


def _dict_of(value: "Any") -> "Any":
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return attributes if type(attributes) is dict else None


def _lock(name: "Any", value: "Any") -> "Any":
    """Name, type, identity, whether it is locked, and by which thread where it knows."""
    inner = value
    for attribute in ("_lock", "_block"):
        if type(value).__name__ in ("Condition", "_RLock"):
            inner = value.__dict__.get(attribute, inner)
    text = repr(inner)
    owner = text.partition(" owner=")[2].split(" ", 1)[0]
    return (name, type(value).__name__, id(inner), text.startswith("<locked"), int(owner) if owner.isdigit() else None)


def find_pool(thread: "Any", pools: "Any") -> "Any":
    """Put the pool that the thread works for among ``pools``."""
    if thread is None:
        return
    if type(thread).__name__ == "_ExecutorManagerThread":
        if id(thread) not in pools:
            pools[id(thread)] = _ProcessPool(thread)
        return
    target, args = thread.__dict__.get("_target"), thread.__dict__.get("_args") or ()
    module, name = getattr(target, "__module__", None) or "", getattr(target, "__qualname__", "")
    if module == "concurrent.futures.thread" and name == "_worker" and args:
        executor = args[0]()
        if executor is not None and (id(executor) not in pools or pools[id(executor)].executor() is not executor):
            pools[id(executor)] = _ThreadPool(executor)
    elif module == "multiprocessing.pool" and name.startswith("Pool._handle_"):
        _find_multiprocessing(name[len("Pool._handle_") :], thread, args, pools)
    elif module == "pebble.pool.process" and name.endswith("_loop") and args:
        if id(args[0]) not in pools:
            pools[id(args[0])] = _PebblePool(args[0])
    elif module.startswith("resilient_exec.supervisor"):
        _find_own(pools)


def _find_multiprocessing(name: "Any", thread: "Any", args: "Any", pools: "Any") -> "Any":
    caches = [value for value in args if isinstance(value, dict)]
    if caches:
        if id(caches[0]) not in pools:
            pools[id(caches[0])] = _MultiprocessingPool(caches[0])
        pools[id(caches[0])].take(name, thread, args)


def _find_own(pools: "Any") -> "Any":
    for pool in list(getattr(_sys_modules.get("resilient_exec.pool.live"), "live_pools", ())):
        if id(pool) not in pools:
            pools[id(pool)] = _OwnPool(pool)


def _name_of(function: "Any") -> "Any":
    """What a task calls, by name; behind partial objects and the chunks of ``map``."""
    for _ in range(5):
        inner = getattr(function, "func", None)
        if type(function).__name__ != "partial" or inner is None:
            break
        is_chunk = getattr(inner, "__name__", "") == "_process_chunk" and function.args
        function = function.args[0] if is_chunk else inner
    if type(function).__module__.startswith(("joblib", "loky")) and hasattr(function, "items"):
        function = function.items[0][0] if function.items else function  # joblib's batch of calls
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(getattr(function, "__module__", "?")) + "." + str(name)


def _start_method(context: "Any") -> "Any":
    return getattr(getattr(context, "_actual_context", None), "_name", None) or getattr(context, "_name", None)


class _ProcessPool:
    """A process pool of the standard library or loky, which has a table of tasks that are not done, by number."""

    kind = "ProcessPoolExecutor"

    def __init__(self, manager: "Any") -> None:
        self.manager, self.executor = manager, manager.executor_reference
        self.kind = "loky" if type(manager).__module__.startswith(("loky", "joblib")) else "ProcessPoolExecutor"
        self.first_seen: dict[Any, Any] = {}
        self.submitted: Any = None
        self.max_workers = self.method = None
        self.max_tasks = getattr(manager, "max_tasks_per_child", None)

    def processes(self) -> "Any":
        return list((self.manager.processes or {}).values())

    def tell(self, _: "Any") -> "Any":
        manager, executor = self.manager, self.executor()
        table = manager.pending_work_items
        tokens = None
        if executor is not None:
            self.submitted, self.max_workers = executor._queue_count, executor._max_workers
            self.method = _start_method(getattr(executor, "_mp_context", None) or getattr(executor, "_context", None))
            tokens = getattr(getattr(executor, "_idle_worker_semaphore", None), "_value", None)
        elif self.submitted is not None and table:  # collected: the last call that was submitted has the highest number
            self.submitted = max(self.submitted, max(table) + 1)
        flags = getattr(executor, "_flags", None)
        items = list(table.items())[:_MOST_ITEMS]
        running, waiting, dropped = [], 0, 0
        for number, item in items:
            state = item.future._state
            if state == "RUNNING":
                running.append((number, item))
            elif state == "PENDING":
                waiting += 1
            else:
                dropped += 1
        pending = waiting + max(0, len(table) - len(items))
        told = _counts(self, self.submitted, running=len(running), pending=pending, cancelled=dropped)
        now = time.monotonic()
        oldest = running[0] if running else items[0] if items else None
        self.first_seen = {number: self.first_seen.get(number, now) for number, _ in running or items[:1]}
        if oldest is not None:
            told["oldest"] = (_name_of(oldest[1].fn), now - self.first_seen[oldest[0]])
        told["workers"] = [process.pid for process in self.processes() if process._popen is not None]
        told["idle_tokens"] = tokens
        told["shut"] = bool(getattr(executor, "_shutdown_thread", None) or getattr(flags, "shutdown", False))
        told["broken"] = bool(getattr(executor, "_broken", None) or getattr(flags, "broken", None))
        told["manager_alive"] = manager.is_alive() or manager.ident is None  # not yet
        told["collected"] = executor is None
        told["shut_without_wait"] = executor is not None and getattr(executor, "_executor_manager_thread", 0) is None
        return told if manager.is_alive() or table else None


def _counts(pool: "Any", submitted: "Any", *, running: "Any", pending: "Any", cancelled: "Any" = 0) -> "Any":
    done = None if submitted is None else max(0, submitted - running - pending - cancelled)
    return {
        "kind": pool.kind,
        "done": done,
        "running": running,
        "pending": pending,
        "cancelled": cancelled,
        "max_workers": pool.max_workers,
        "max_tasks": pool.max_tasks,
        "method": pool.method,
        "workers": [],
        "id": id(pool),
    }


class _ThreadPool:
    """Of the standard library.  What was submitted is counted where ``submit`` looks for an idle thread."""

    kind = "ThreadPoolExecutor"
    max_tasks = method = None

    def __init__(self, executor: "Any") -> None:
        threading = _sys_modules["threading"]
        self.executor = _sys_modules["weakref"].ref(executor)
        self.max_workers = executor._max_workers
        self.submitted = counter = [1]  # the one for which its first thread is being started
        self.since: dict[Any, Any] = {}

        class Semaphore(threading.Semaphore):  # type: ignore[misc,name-defined]
            def acquire(self, blocking: "Any" = True, timeout: "Any" = None) -> "Any":  # noqa: FBT002  as in threading
                counter[0] += 1  # under the executor's lock
                return threading.Semaphore.acquire(self, blocking, timeout)

        if type(executor._idle_semaphore) is threading.Semaphore:
            executor._idle_semaphore.__class__ = Semaphore

    def processes(self) -> "Any":
        return []

    def tell(self, frames: "Any") -> "Any":
        executor = self.executor()
        if executor is None:
            return None
        now, running = time.monotonic(), {}
        for thread in list(executor._threads):
            frame = frames.get(thread.ident)
            if frame is None or frame.f_code.co_name == "_worker":
                continue
            name = ""
            while frame is not None and frame.f_code.co_name != "_worker":
                code = frame.f_code
                if code.co_name != "run" or not code.co_filename.endswith("thread.py"):
                    name = str(frame.f_globals.get("__name__")) + "." + getattr(code, "co_qualname", code.co_name)
                frame = frame.f_back
            since, before = self.since.get(thread.ident, (now, name))
            running[thread.ident] = (since if before == name else now, name)
        self.since = running
        told = _counts(self, self.submitted[0], running=len(running), pending=executor._work_queue.qsize())
        if running:
            since, name = min(running.values())
            told["oldest"] = (name, now - since)
        told["threads"] = [thread.ident for thread in list(executor._threads)]
        told["shut"] = bool(executor._shutdown)
        return None if told["shut"] and not running and not told["pending"] else told


class _MultiprocessingPool:
    """``multiprocessing.Pool`` and its kin: a table of jobs, and three threads."""

    def __init__(self, cache: "Any") -> None:
        self.cache = cache
        self.handlers: dict[str, Any] = {}
        self.workers: Any = []
        self.max_workers = self.max_tasks = self.method = self.tasks = None
        self.kind = "multiprocessing.Pool"
        self.totals: dict[int, int] = {}
        self.finished = 0
        self.first_seen: dict[Any, Any] = {}

    def take(self, name: "Any", thread: "Any", args: "Any") -> "Any":
        """Learn from the arguments of one of its three threads."""
        self.handlers[name] = thread
        if name == "workers" and len(args) > 10:
            self.workers, self.max_workers, self.max_tasks = args[5], args[4], args[10]
            self.method = getattr(args[2], "_name", None)
        elif name == "tasks":
            self.tasks = args[0]

    def processes(self) -> "Any":
        return [worker for worker in list(self.workers) if hasattr(worker, "_popen")]

    def tell(self, _: "Any") -> "Any":
        alive = {name: thread.is_alive() for name, thread in list(self.handlers.items())}
        if not any(alive.values()):
            return None
        jobs = {number: _job(job) for number, job in list(self.cache.items())}
        for number in [number for number in self.totals if number not in jobs]:
            self.finished += self.totals.pop(number)
            self.first_seen.pop(number, None)
        for number, (_, total) in jobs.items():
            self.totals[number] = total
            self.first_seen.setdefault(number, time.monotonic())
        if self.workers and not hasattr(self.workers[0], "_popen"):
            self.kind = "multiprocessing.pool.ThreadPool"
        done = self.finished + sum(done for done, _ in jobs.values())
        messages = [-(-(total - done) // _chunk_size(self.cache.get(number))) for number, (done, total) in jobs.items()]
        left = sum(total - done for done, total in jobs.values())
        told = _counts(self, None, running=None, pending=left)
        told["done"] = done
        told["messages"] = sum(messages)
        told["threads"] = [worker.ident for worker in list(self.workers) if not hasattr(worker, "_popen")]
        told["workers"] = [worker._popen.pid for worker in self.processes() if worker._popen is not None]
        told["handlers"] = alive
        told["created"] = _number_in(_sys_modules["multiprocessing.process"]._process_counter) - 1
        told["queued"] = self.tasks.qsize() if self.tasks is not None else None
        if jobs:
            oldest = min(jobs)
            told["oldest"] = (type(self.cache.get(oldest)).__name__, time.monotonic() - self.first_seen[oldest])
        return told


def _job(job: "Any") -> "Any":
    """How many items of a call are done, and how many it has."""
    if hasattr(job, "_unsorted"):
        received = job._index + len(job._unsorted)
        return received, max(received, job._length or 0)  # without a length: it is still being submitted
    value = getattr(job, "_value", None)
    if hasattr(job, "_chunksize") and type(value) is list:
        return len(value) - min(len(value), job._number_left * job._chunksize), len(value)
    return 0, 1


def _chunk_size(job: "Any") -> "Any":
    """How many items of a call travel to a worker together."""
    return max(1, getattr(job, "_chunksize", 1) or 1)


def _number_in(counter: "Any") -> "Any":
    """Return what ``next()`` of an ``itertools.count`` would give, without taking it."""
    text = repr(counter)
    return int(text[text.index("(") + 1 : -1])


class _PebblePool:
    """``pebble.ProcessPool``: a table of tasks, each with the pid of its worker."""

    kind, method = "pebble.ProcessPool", None

    def __init__(self, manager: "Any") -> None:
        self.manager = manager
        self.submitted = 0
        self.max_workers = manager.context.workers
        self.max_tasks = manager.context.worker_parameters.max_tasks or None

    def processes(self) -> "Any":
        return list(self.manager.worker_manager.workers.values())

    def tell(self, _: "Any") -> "Any":
        context = self.manager.context
        tasks = list(self.manager.task_manager.tasks.values())
        self.submitted = max([self.submitted, *(task.id + 1 for task in tasks)])
        running = [task for task in tasks if task.timestamp > 0]
        told = _counts(self, None, running=len(running), pending=len(tasks) - len(running) + context.task_queue.qsize())
        told["done"] = max(0, self.submitted - len(tasks))
        told["workers"] = list(self.manager.worker_manager.workers)
        told["shut"] = context._status not in (1, 2) or None
        if running:
            oldest = min(running, key=lambda task: task.timestamp)
            told["oldest"] = (_name_of(oldest.payload.function), time.time() - oldest.timestamp)
        return told if tasks or context._status <= 2 else None


class _OwnPool:
    """A ``ResilientPool``: it knows all this itself."""

    kind, max_tasks, method = "ResilientPool", None, None

    def __init__(self, pool: "Any") -> None:
        self.pool = _sys_modules["weakref"].ref(pool)
        self.max_workers = pool._max_workers

    def processes(self) -> "Any":
        return []

    def tell(self, _: "Any") -> "Any":
        pool = self.pool()
        if pool is None or pool._shut:
            return None
        counts = pool.snapshot()
        told = _counts(self, None, running=counts["running"], pending=counts["pending"] + counts["backing_off"])
        told["done"] = counts["done"] + counts["failed"]
        told["cancelled"] = counts["cancelled"]
        told["workers"] = [lane["pid"] for lane in counts["lanes"] if lane["pid"]]
        busy = [lane for lane in counts["lanes"] if lane.get("elapsed") is not None]
        if busy:
            oldest = max(busy, key=lambda lane: lane["elapsed"])
            told["oldest"] = ("task " + repr(oldest["key"])[:80], oldest["elapsed"])
        return told
