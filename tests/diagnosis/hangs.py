"""Programs that hang, each in a way of its own, and what it is called; ``None``: it has no name of ours.

Each is the text of a script.  A script prints ``ready`` when there is nothing left to do but to hang.
"""

from __future__ import annotations

GH_115634 = """
import concurrent.futures as c

def work(n):
    return n

if __name__ == "__main__":
    with c.ProcessPoolExecutor(2, max_tasks_per_child=3) as executor:
        futures = [executor.submit(work, n) for n in range(20)]
        for future in c.as_completed(futures):
            future.result()
"""

LOCK_OF_THE_DEAD = """
import multiprocessing, os, signal, time

def consume(queue, ready):
    if ready is not None:
        queue._rlock.acquire()  # as a worker that is killed in the middle of get()
        ready.set()
        os.kill(os.getpid(), signal.SIGKILL)
    queue.get()

if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    queue, ready = context.Queue(), context.Event()
    first = context.Process(target=consume, args=(queue, ready))
    first.start()
    ready.wait()
    first.join()
    rest = [context.Process(target=consume, args=(queue, None)) for _ in range(2)]
    for process in rest:
        process.start()
    for n in range(2):
        queue.put(n)
    for process in rest:
        process.join()
"""

POOL_LOCK_OF_THE_DEAD = """
import multiprocessing, os, signal, time

def work(n):
    time.sleep(0.05)
    return n

if __name__ == "__main__":
    pool = multiprocessing.get_context("fork").Pool(3)
    pool.map(work, range(6))
    time.sleep(0.3)
    # Of idle workers one waits in recv with the lock, the others wait for the lock.
    for process in list(pool._pool):
        stack = open(f"/proc/{process.pid}/syscall").read().split()
        if stack[0] == "0":
            os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.5)
    pool.map(work, range(6))
"""

HALF_A_MESSAGE = """
import multiprocessing, os, signal, struct, time

def produce(queue):
    os.write(queue._writer.fileno(), struct.pack("!i", 1000) + b"x" * 10)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=produce, args=(queue,))
    process.start()
    process.join()
    queue.get()
"""

FULL_PIPE_JOIN = """
import multiprocessing

def produce(queue):
    for n in range(20):
        queue.put("x" * 100_000)

if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    queue = context.Queue()
    process = context.Process(target=produce, args=(queue,))
    process.start()
    process.join()
    print(queue.get())
"""

OUTPUT_NOT_READ = """
import subprocess, sys

process = subprocess.Popen([sys.executable, "-c", "print('x' * 1_000_000)"], stdout=subprocess.PIPE)
process.wait()
"""

BOTH_WRITE = """
import multiprocessing

def child(connection):
    connection.send_bytes(b"x" * 1_000_000)
    connection.recv_bytes()

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    there, back = context.Pipe(duplex=False), context.Pipe(duplex=False)

    def child():
        back[1].send_bytes(b"x" * 1_000_000)
        there[0].recv_bytes()

    process = context.Process(target=child)
    process.start()
    there[1].send_bytes(b"x" * 1_000_000)
    back[0].recv_bytes()
"""

FORK_WITH_LOCK = """
import multiprocessing, threading, time, warnings
warnings.simplefilter("ignore")
lock = threading.Lock()  # as a library has it: logging until 3.11, caches, progress bars

def work():
    with lock:
        pass

def hold():
    with lock:
        time.sleep(1.0)

if __name__ == "__main__":
    threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.2)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
"""

FORK_WITH_THREAD_POOL = """
import concurrent.futures, multiprocessing, warnings
warnings.simplefilter("ignore")
threads = concurrent.futures.ThreadPoolExecutor(1)

def work():
    return threads.submit(abs, -1).result()

if __name__ == "__main__":
    threads.submit(abs, -1).result()
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
"""

STOPPED = """
import concurrent.futures as c, os, signal, time

def work(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return n

if __name__ == "__main__":
    with c.ProcessPoolExecutor(2) as executor:
        print(list(executor.map(work, range(8))))
"""

LOCKS = """
import threading, time
a, b = threading.Lock(), threading.Lock()
barrier = threading.Barrier(2)

def forwards():
    with a:
        barrier.wait()
        with b:
            pass

def backwards():
    with b:
        barrier.wait()
        with a:
            pass

threads = [threading.Thread(target=forwards), threading.Thread(target=backwards)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

RLOCKS = """
import threading

class Account:
    def __init__(self):
        self.lock = threading.RLock()

    def move(self, other, barrier):
        self.lock.acquire()
        barrier.wait()
        other.lock.acquire()
        other.lock.release()
        self.lock.release()

one, two, barrier = Account(), Account(), threading.Barrier(2)
threads = [threading.Thread(target=a.move, args=(b, barrier)) for a, b in ((one, two), (two, one))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

SELF_LOCK = """
import threading
lock = threading.Lock()

def outer():
    with lock:
        inner()

def inner():
    with lock:
        pass

thread = threading.Thread(target=outer)
thread.start()
thread.join()
"""

POOL_WAITS_FOR_ITSELF = """
import concurrent.futures as c, threading
executor = c.ThreadPoolExecutor(2)
barrier = threading.Barrier(2)

def outer():
    barrier.wait()
    return executor.submit(abs, -1).result()

print([future.result() for future in [executor.submit(outer) for _ in range(2)]])
"""

THREAD_POOL_WAITS_FOR_ITSELF = """
from multiprocessing.pool import ThreadPool
import threading
barrier = threading.Barrier(2)
pool = ThreadPool(2)

def outer(n):
    barrier.wait()
    return pool.apply(abs, (-1,))

print(pool.map(outer, range(2), chunksize=1))
"""

UNGUARDED = """
import multiprocessing

def work(n):
    return n

multiprocessing.set_start_method("METHOD", force=True)
with multiprocessing.Pool(2) as pool:
    print(pool.map(work, range(4)))
"""

IMPORT_DIES = """
import multiprocessing, os, sys

if __name__ == "__main__":
    os.makedirs("elsewhere", exist_ok=True)
    open("elsewhere/only_here.py", "w").write("def work(n):\\n    return n\\n")
    sys.path.insert(0, "elsewhere")
    import only_here
    sys.path.remove("elsewhere")
    with multiprocessing.get_context("spawn").Pool(2, initializer=only_here.work, initargs=(1,)) as pool:
        print(pool.map(abs, range(4)))
"""

INITIALIZER_DIES = """
import multiprocessing

def prepare():
    raise OSError("no such licence server")

if __name__ == "__main__":
    with multiprocessing.get_context("METHOD").Pool(2, initializer=prepare) as pool:
        print(pool.map(abs, range(4)))
"""

RESULT_HANDLER_DEAD = """
import multiprocessing

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")

def work(n):
    raise Odd(n, 2)

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, range(4)))
"""

LOST_TASK = """
import multiprocessing, os, time

def work(n):
    if n == 3:
        os._exit(1)
    return n

if __name__ == "__main__":
    with multiprocessing.get_context("METHOD").Pool(2) as pool:
        print(pool.map(work, range(8), chunksize=1))
"""

CHILD_WAITS_FOR_STDIN = """
import concurrent.futures as c, subprocess, sys

def work(n):
    return subprocess.run([sys.executable, "-c", "input('password? ')"], stdout=subprocess.PIPE)

with c.ThreadPoolExecutor(1) as executor:
    executor.submit(work, 1).result()
"""

SHUT_WITHOUT_WAIT = """
import concurrent.futures as c, time

def work(n):
    return n

if __name__ == "__main__":
    executor = c.ProcessPoolExecutor(2, max_tasks_per_child=1)
    futures = [executor.submit(work, n) for n in range(20)]
    executor.shutdown(wait=False)
    for future in c.as_completed(futures):
        future.result()
"""

COLLECTED = """
import concurrent.futures as c

def work(n):
    return n

def submit():
    executor = c.ProcessPoolExecutor(1, max_tasks_per_child=1)
    return [executor.submit(work, n) for n in range(4)]

if __name__ == "__main__":
    print([future.result() for future in submit()])
"""

UNKNOWN_PROCESS_LOCK = """
import concurrent.futures as c, multiprocessing

def prepare(given):
    global lock
    lock = given

def work(n):
    lock.acquire()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    with c.ProcessPoolExecutor(2, mp_context=context, initializer=prepare, initargs=(lock,)) as executor:
        print(list(executor.map(work, range(4))))
"""

UNKNOWN_FUTURE = """
import concurrent.futures as c, threading
never = threading.Event()

with c.ThreadPoolExecutor(2) as executor:
    print([future.result() for future in [executor.submit(never.wait) for _ in range(2)]])
"""

READS_STDOUT_FIRST = """
import subprocess, sys

command = "import sys; sys.stderr.write('e' * 500_000); print('done')"
process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
print(process.stdout.read())
process.wait()
"""

TASK_WAITS_FOR_OUTPUT = """
import concurrent.futures as c, subprocess, sys

def work(n):
    process = subprocess.Popen([sys.executable, "-c", "print('x' * 300_000)"], stdout=subprocess.PIPE)
    process.wait()
    return n

with c.ThreadPoolExecutor(2) as executor:
    print(list(executor.map(work, range(4))))
"""

FULL_PAIR_OF_SOCKETS = """
import multiprocessing

def child(connection):
    connection.send(b"x" * 1_000_000)

if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    process.join()
    print(len(here.recv()))
"""

BOTH_WRITE_TO_SOCKETS = """
import multiprocessing

def child(connection):
    connection.send_bytes(b"x" * 1_000_000)
    connection.recv_bytes()

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    here.send_bytes(b"x" * 1_000_000)
    here.recv_bytes()
"""

FEEDER_AT_EXIT = """
import multiprocessing

if __name__ == "__main__":
    queue = multiprocessing.Queue()
    for n in range(100):
        queue.put("x" * 100_000)
    print("done")
"""

LOST_TASK_OF_A_POOL_THAT_RECYCLES = """
import multiprocessing, os

def work(n):
    if n == 7:
        os._exit(1)
    return n

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=2) as pool:
        print(pool.map(work, range(20), chunksize=1))
"""

INITIALIZER_DIES_BEFORE_MANY_TASKS = """
import multiprocessing

def prepare():
    raise RuntimeError("no licence")

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2, initializer=prepare) as pool:
        print(pool.map(abs, range(100), chunksize=1))
"""

RESULT_DOES_NOT_UNPICKLE = """
import multiprocessing

class Bad:
    def __init__(self, a):
        self.a = a

    def __reduce__(self):
        return Bad, ()

def work(n):
    return Bad(n)

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.apply_async(work, (1,)).get())
"""

LOCKS_IN_A_POOL = """
import concurrent.futures as c, threading
a, b, barrier = threading.Lock(), threading.Lock(), threading.Barrier(2)

def one():
    a.acquire(); barrier.wait(); b.acquire()

def two():
    b.acquire(); barrier.wait(); a.acquire()

with c.ThreadPoolExecutor(2) as executor:
    for future in [executor.submit(one), executor.submit(two)]:
        future.result()
"""

CALLBACK_WAITS = """
import concurrent.futures as c, time
executor = c.ThreadPoolExecutor(1)

def tell(future):
    print(executor.submit(int).result())

executor.submit(time.sleep, 0.5).add_done_callback(tell)
executor.submit(int)
time.sleep(1)
executor.submit(int).result()
"""

JOBLIB_STOPPED = """
import os, signal
import joblib

def work(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return n

if __name__ == "__main__":
    print(joblib.Parallel(n_jobs=2)(joblib.delayed(work)(n) for n in range(8)))
"""

OWN_EVENT_IN_A_FORKED_WORKER = """
import concurrent.futures as c, multiprocessing, threading

def prepare():
    threading.Event().wait()

if __name__ == "__main__":
    with c.ProcessPoolExecutor(2, multiprocessing.get_context("fork"), initializer=prepare) as executor:
        print(list(executor.map(abs, range(4))))
"""

CONSUMER_DEAD = """
import concurrent.futures as c, queue
items = queue.Queue(maxsize=2)

def produce():
    for n in range(10):
        items.put(n)

def consume():
    items.get()
    raise ValueError("the consumer is gone")

with c.ThreadPoolExecutor(2) as executor:
    for future in [executor.submit(produce), executor.submit(consume)]:
        print(future.result())
"""

NAMES: dict[str, tuple[str, str | None]] = {
    "gh-115634": (GH_115634, "gh-115634"),
    "lock of the dead (fork)": (LOCK_OF_THE_DEAD.replace("METHOD", "fork"), "lock-of-the-dead"),
    "lock of the dead (spawn)": (LOCK_OF_THE_DEAD.replace("METHOD", "spawn"), "lock-of-the-dead"),
    "pool with the lock of the dead": (POOL_LOCK_OF_THE_DEAD, "lock-of-the-dead"),
    "half a message": (HALF_A_MESSAGE, "half-a-message"),
    "full pipe at join (fork)": (FULL_PIPE_JOIN.replace("METHOD", "fork"), "full-pipe"),
    "full pipe at join (spawn)": (FULL_PIPE_JOIN.replace("METHOD", "spawn"), "full-pipe"),
    "output not read": (OUTPUT_NOT_READ, "output-not-read"),
    "both write": (BOTH_WRITE, "full-pipe"),
    "fork with a lock": (FORK_WITH_LOCK, "fork-with-locks-held"),
    "fork with a thread pool": (FORK_WITH_THREAD_POOL, "fork-with-locks-held"),
    "stopped": (STOPPED, "stopped"),
    "locks": (LOCKS, "lock-deadlock"),
    "rlocks": (RLOCKS, "lock-deadlock"),
    "lock taken twice": (SELF_LOCK, "lock-deadlock"),
    "pool waits for itself": (POOL_WAITS_FOR_ITSELF, "pool-waits-for-itself"),
    "thread pool waits for itself": (THREAD_POOL_WAITS_FOR_ITSELF, "pool-waits-for-itself"),
    "unguarded (spawn)": (UNGUARDED.replace("METHOD", "spawn"), "unguarded-main"),
    "unguarded (forkserver)": (UNGUARDED.replace("METHOD", "forkserver"), "unguarded-main"),
    "import dies": (IMPORT_DIES, "workers-die-at-start"),
    "initializer dies (spawn)": (INITIALIZER_DIES.replace("METHOD", "spawn"), "workers-die-at-start"),
    "initializer dies (fork)": (INITIALIZER_DIES.replace("METHOD", "fork"), "workers-die-at-start"),
    "result handler dead": (RESULT_HANDLER_DEAD, "result-handler-dead"),
    "lost task (fork)": (LOST_TASK.replace("METHOD", "fork"), "lost-task"),
    "lost task (spawn)": (LOST_TASK.replace("METHOD", "spawn"), "lost-task"),
    "child waits for stdin": (CHILD_WAITS_FOR_STDIN, "waits-for-stdin"),
    "reads stdout first": (READS_STDOUT_FIRST, "output-not-read"),
    "a task waits for a child that prints": (TASK_WAITS_FOR_OUTPUT, "output-not-read"),
    "full pair of sockets (fork)": (FULL_PAIR_OF_SOCKETS.replace("METHOD", "fork"), "full-pipe"),
    "full pair of sockets (spawn)": (FULL_PAIR_OF_SOCKETS.replace("METHOD", "spawn"), "full-pipe"),
    "both write to sockets": (BOTH_WRITE_TO_SOCKETS, "full-pipe"),
    "feeder at exit": (FEEDER_AT_EXIT, "full-pipe"),
    "lost task of a pool that recycles": (LOST_TASK_OF_A_POOL_THAT_RECYCLES, "lost-task"),
    "initializer dies before many tasks": (INITIALIZER_DIES_BEFORE_MANY_TASKS, "workers-die-at-start"),
    "result does not unpickle": (RESULT_DOES_NOT_UNPICKLE, "result-handler-dead"),
    "locks in a pool": (LOCKS_IN_A_POOL, "lock-deadlock"),
    "a callback waits for its own pool": (CALLBACK_WAITS, "pool-waits-for-itself"),
    "joblib's worker is stopped": (JOBLIB_STOPPED, "stopped"),
    "shut without wait": (SHUT_WITHOUT_WAIT, "gh-119592"),
    "collected": (COLLECTED, "gh-152967"),
    "lock of processes": (UNKNOWN_PROCESS_LOCK, None),
    "an event that never comes": (UNKNOWN_FUTURE, None),
    "own event in a forked worker": (OWN_EVENT_IN_A_FORKED_WORKER, None),
    "consumer dead": (CONSUMER_DEAD, None),
}
