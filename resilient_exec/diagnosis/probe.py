"""Runs inside a watched program: tells which pools it has, how far they are, and where its threads stand.

It is loaded at the start of each Python process of that program (hooks/sitecustomize.py), imports nothing that is not
imported already, and belongs to no module.  What it does there:

* **Stacks without Python.**  ``faulthandler`` writes them to a file of the watcher's on SIGURG, which is ignored by
  default: a process that has lost the handler takes no harm.
* **A thread where there are threads.**  Pools have threads; with the program's first one a thread of ours starts, which
  reads the tables that the pools keep anyway and writes what it sees to a file, some times in a second.  Nothing
  is done for a single task.  It takes no lock of the program's, is not in ``threading.enumerate()``, steps aside
  for a fork if it is the only other thread, and ends with the last thread of the program's or when the watcher is gone.

Files are written as ``repr`` of plain values; names of files and functions travel, arguments and values never.
"""

import sys

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from typing import Any

_sys_modules = sys.modules
posix = _sys_modules["posix"]
time = _sys_modules["time"]
_thread = _sys_modules["_thread"]
_signal = _sys_modules["_signal"]

_SHARE = 100  # the thread sleeps at least so many times as long as it has worked
_HIGH = 250  # the descriptor of the stacks: where no program expects its own


def start(folder: "Any", interval: "Any", watcher: "Any") -> None:
    """Begin; called once in a process.

    Args:
        folder: of the watcher; when it is gone nothing is told any more.
        interval: s between two looks.
        watcher: pid and start time of the watcher, with a space between.
    """
    _Probe(folder, interval, watcher).install()


class _Probe:
    def __init__(self, folder: "Any", interval: "Any", watcher: "Any") -> None:
        self.folder, self.interval, self.watcher = folder, interval, watcher
        self.originals: dict[Any, Any] = {}
        self.stacks_fd = -1
        self.is_forked = False
        self.lost: Any = None  # threads that a child will not have
        self.lost_threads: Any = None
        self.file = __file__
        self.reader: dict[str, Any] = {}  # the names of probe_pools.py, once it is loaded
        self.forget()

    def forget(self) -> None:
        """Reset what was counted, for a child that has just been forked."""
        self.pid = posix.getpid()
        self.began = time.monotonic()
        self.wake = _thread.allocate_lock()
        self.wake.acquire()
        self.is_running = self.is_stopping = False
        self.written = 0
        self.pools: dict[Any, Any] = {}
        self.popens: dict[Any, Any] = {}
        self.cancelled = 0
        self.alone = 0

    # -- what is put into the program, and taken out again ---------------------------------------------------------

    def install(self) -> None:
        self._register_stacks()
        for name in ("start_new_thread", "start_joinable_thread"):
            original = getattr(_thread, name, None)
            if original is not None:
                self.originals[name] = original
                setattr(_thread, name, self._starting(original))
        posix.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_fork)
        self._watch_start()
        self._say_hello()

    def _register_stacks(self) -> "Any":
        was_there = "faulthandler" in _sys_modules
        try:
            import faulthandler

            if _signal.getsignal(_signal.SIGURG) != _signal.SIG_DFL:
                return  # the program's own
            fd = posix.open(self.folder + "/stacks", posix.O_WRONLY | posix.O_APPEND | posix.O_CLOEXEC)
            high = next(number for number in range(_HIGH, 0, -1) if _is_free(number))
            self.stacks_fd = posix.dup2(fd, high, False)
            posix.close(fd)
            faulthandler.register(_signal.SIGURG, file=high, all_threads=True, chain=False)
        except (ImportError, OSError, StopIteration, ValueError, AttributeError):
            self.stacks_fd = -1
        finally:
            if not was_there:
                _sys_modules.pop("faulthandler", None)

    def _say_hello(self) -> "Any":
        self._write(
            "hello",
            {
                "pid": self.pid,
                "version": tuple(sys.version_info[:3]),
                "argv": [str(word)[:300] for word in getattr(sys, "orig_argv", sys.argv)[:40]],
                "stacks": self.stacks_fd,
                "forked": self.is_forked,
                "lost_threads": self.lost_threads,
            },
        )

    def _watch_start(self) -> "Any":
        """In a child of multiprocessing or loky: tell what ends it before it works.  Nothing else has a look at it."""
        words = getattr(sys, "orig_argv", ())
        if not any(word in ("--multiprocessing-fork", "--process-name") or "forkserver" in word for word in words):
            return
        shown = sys.excepthook

        def tell(kind: "Any", error: "Any", trace: "Any") -> "Any":
            self.tell_death(kind, error, trace)
            shown(kind, error, trace)

        sys.excepthook = tell

    def tell_death(self, kind: "Any", error: "Any", trace: "Any") -> "Any":
        """Write what has ended this process."""
        try:
            place, is_start = "", False
            while trace is not None:
                code = trace.tb_frame.f_code
                is_start = is_start or code.co_filename.endswith(("multiprocessing/spawn.py", "/popen_loky_posix.py"))
                if "/multiprocessing/" not in code.co_filename and "<frozen" not in code.co_filename:
                    place = place or code.co_filename + ", line " + str(trace.tb_lineno)
                trace = trace.tb_next
            text = kind.__name__ + ": " + str(error).strip()[:1500]
            told = {"pid": self.pid, "parent": posix.getppid(), "error": text, "age": time.monotonic() - self.began}
            self._write("died", {**told, "position": ("start: " if is_start else "") + place})
        except Exception:  # the process ends as without us
            pass

    def _uninstall(self) -> "Any":
        """Take the hooks out again, since nobody watches any more."""
        threading = _sys_modules.get("threading")
        for name, original in self.originals.items():
            setattr(_thread, name, original)
            if threading is not None and hasattr(threading, "_" + name):
                setattr(threading, "_" + name, original)
        self.originals = {}
        base = _sys_modules.get("concurrent.futures._base")
        if base is not None and hasattr(base.Future.cancel, "_unwatched"):
            base.Future.cancel = base.Future.cancel._unwatched
        if self.stacks_fd >= 0:
            import faulthandler

            faulthandler.unregister(_signal.SIGURG)
            posix.close(self.stacks_fd)
            self.stacks_fd = -1
        for name in posix.listdir(self.folder):  # a watcher that was killed could not
            posix.unlink(self.folder + "/" + name)
        posix.rmdir(self.folder)

    def _starting(self, original: "Any") -> "Any":
        def start_thread(*args: "Any", **kwargs: "Any") -> "Any":
            self._before_thread(args[0] if args else None)
            return original(*args, **kwargs)

        start_thread.__name__ = start_thread.__qualname__ = original.__name__
        start_thread.__doc__, start_thread.__module__ = original.__doc__, "_thread"
        return start_thread

    def _before_thread(self, function: "Any") -> "Any":
        try:
            if "start_new_thread" in self.originals and "threading" in _sys_modules:
                self._find_pool(getattr(function, "__self__", None))
                self._watch_cancels()
                self._start_reporting()
        except Exception:
            pass

    def _find_pool(self, thread: "Any") -> "Any":
        if not self.reader:
            path = self.file[: -len(".py")] + "_pools.py"
            loader = _sys_modules["_frozen_importlib_external"].SourceFileLoader("resilient_exec_probe_pools", path)
            self.reader = {"__name__": "resilient_exec_probe_pools", "__file__": path}
            exec(loader.get_code("resilient_exec_probe_pools"), self.reader)  # noqa: S102  see start()
        self.reader["find_pool"](thread, self.pools)

    def _start_reporting(self) -> "Any":
        if not self.is_running:
            self.is_running, self.is_stopping, self.alone = True, False, 0
            # At once, and here: should a task hold the GIL from now on, at least this is known.
            self._write("state", self._state(0))
            self.originals["start_new_thread"](self._report, ())

    def _watch_cancels(self) -> "Any":
        base = _sys_modules.get("concurrent.futures._base")
        if base is None or hasattr(base.Future.cancel, "_unwatched"):
            return
        original, probe = base.Future.cancel, self

        def cancel(self: "Any") -> "Any":
            was = self._state
            done = original(self)
            if done and was == "PENDING":
                probe.cancelled += 1
            return done

        cancel.__doc__, cancel.__qualname__, cancel.__module__ = original.__doc__, "Future.cancel", base.__name__
        cancel._unwatched = original  # type: ignore[attr-defined]
        base.Future.cancel = cancel

    # -- forks -----------------------------------------------------------------------------------------------------

    def _before_fork(self) -> "Any":
        """With no thread but the main one and ours the program may fork as without us: ours ends first."""
        try:
            threads = len(posix.listdir("/proc/self/task"))
            self.lost = threads - 1 - self.is_running
            if self.is_running and threads == 2:
                self.is_stopping = True
                self.wake.release()
                for _ in range(200):
                    if len(posix.listdir("/proc/self/task")) == 1:
                        break
                    time.sleep(0.0002)
        except Exception:
            pass

    def _after_fork(self) -> "Any":
        pass  # the next thread of the program's starts ours again

    def _in_fork(self) -> "Any":
        try:
            self.forget()
            self.is_forked, self.lost_threads = True, self.lost
            if self.originals:
                self._say_hello()
        except Exception:
            pass

    # -- the thread ------------------------------------------------------------------------------------------------

    def _report(self) -> "Any":
        heard = 0
        try:
            while not self.is_stopping:
                began = time.thread_time()  # the clock would tell how busy the machine is
                if not self._is_watched():
                    self._uninstall()
                    break
                asked = posix.stat(self.folder + "/ask").st_mtime_ns
                state = self._state(asked if asked != heard else 0)
                self._write("state", {**state, "heard": asked})
                heard = asked
                told = time.thread_time() - began
                if self.alone > 2 and not state["pools"]:
                    break
                self.wake.acquire(True, max(self.interval, told * _SHARE))
        except Exception as error:
            try:  # noqa: SIM105  contextlib may not be imported
                self._write("error", {"pid": self.pid, "error": repr(error)[:500]})
            except OSError:
                pass
        finally:
            self.is_running = False

    def _is_watched(self) -> "Any":
        pid, started = self.watcher.split()
        try:
            fd = posix.open("/proc/" + pid + "/stat", posix.O_RDONLY)
        except OSError:
            return False
        try:
            text = posix.read(fd, 4096)
        finally:
            posix.close(fd)
        return text[text.rindex(b")") + 2 :].split()[19] == started.encode()

    def _write(self, kind: "Any", values: "Any") -> "Any":
        text = repr(values).encode("utf-8", "backslashreplace")
        path = self.folder + "/" + str(self.pid) + "." + kind
        fd = posix.open(path + ".new", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            left = text
            while left:
                left = left[posix.write(fd, left) :]
        finally:
            posix.close(fd)
        posix.rename(path + ".new", path)
        self.written += len(text)

    # -- what it tells ---------------------------------------------------------------------------------------------

    def _state(self, asked: "Any") -> "Any":
        threading = _sys_modules["threading"]
        threads = list(threading._active.values())
        frames = sys._current_frames()
        for thread in threads:
            self._find_pool(thread)
        me = _thread.get_ident()
        others = [thread for thread in threads if thread.ident in frames and thread.ident != me]
        self.alone = self.alone + 1 if len(others) <= 1 and len(frames) <= 2 else 0
        pools = [told for key in list(self.pools) if (told := self._tell(key, frames)) is not None]
        self._see_children()
        state = {
            "pid": self.pid,
            "at": time.monotonic(),
            "written": self.written,
            "tid": _thread.get_native_id(),
            "pools": pools,
            "cancelled": self.cancelled,
            "deaths": self._deaths(),
        }
        if asked:
            by_ident = {thread.ident: thread for thread in threads}
            state["answers"] = asked
            state["threads"] = [
                self.reader["thread_facts"](ident, by_ident.get(ident), frame)
                for ident, frame in frames.items()
                if ident != me
            ]
        del frames
        return state

    def _tell(self, key: "Any", frames: "Any") -> "Any":
        pool = self.pools[key]
        try:
            told = pool.tell(frames)
        except RuntimeError:  # a table that changed while it was read
            return pool.told if hasattr(pool, "told") else None
        except Exception as error:  # of a version that we do not know
            return {"kind": pool.kind, "error": repr(error)[:200]}
        if told is None:
            del self.pools[key]  # it has ended
        pool.told = told
        return told

    def _see_children(self) -> "Any":
        process = _sys_modules.get("multiprocessing.process")
        children = list(process._children) if process is not None else []
        for pool in list(self.pools.values()):
            children += pool.processes()
        for child in children:
            popen = getattr(child, "_popen", None)
            if popen is not None and popen.returncode is None:
                self.popens.setdefault(popen.pid, popen)

    def _deaths(self) -> "Any":
        """Children that were seen alive and whose end the program has noticed, with their exit codes."""
        return [(pid, popen.returncode) for pid, popen in list(self.popens.items()) if popen.returncode is not None][
            -200:
        ]


def _is_free(number: "Any") -> "Any":
    try:
        posix.fstat(number)
    except OSError:
        return True
    return False
