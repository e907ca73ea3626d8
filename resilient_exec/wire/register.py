"""Memory that a worker and its lane share, and that outlives the worker: what it had begun, where it stood.

Two anonymous files (``memfd``: no path, nothing to clean up, no disk to fill) are inherited by the worker.

* The **register** is mapped by both: the serial of the attempt last begun and when that was, of the one last ended,
  and of the one that is to be told of its soft timeout (which the parent writes); which attempts the parent has taken
  back; what the worker held when the last one began; then where its scratch directories are, and what the task noted
  last.  Writing is a store to memory, so it is true however the process ends, and blame is read, not guessed.  Notes
  stand one behind the other, in two arenas used in turns, and a number says where the one that holds begins: a
  process that ends while it writes leaves the note before, and a note that still stands holds again by one store.
  What changes for many notes at once is a number that stands beside them.  Each note has a checksum, for two threads
  that write at once.  *Taking back* an attempt that was sent and has not begun is settled here, and exactly: the
  parent marks it, then looks whether it is about to begin; the worker says that it is, then looks whether it is
  marked, and only then says that it has begun.
  Whoever comes second sees the other, so that one is never both run here and given to another worker.
  The calls of a chunk have serials one after the other; of the chunk that runs, those from one on are taken back.
  Behind all that is room for the results of calls of a chunk that have ended and are not sent yet (:mod:`.items`):
  they are there however the process ends.  At the very end stand the processes that are not to be killed with the
  worker, since their task has disowned them.
* The **stacks** file is where ``faulthandler`` writes when it is asked by a signal: a C-level handler that works
  even under a held GIL.

Longer than 400 lines: both sides of it, so that one file says what lies where.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import threading
import time
import zlib

__all__ = [
    "AHEAD",
    "BEGUN",
    "BEGUN_AT",
    "HALT",
    "MARKS",
    "NEXT",
    "REGISTER_SIZE",
    "RESULTS_FROM",
    "RESULTS_SIZE",
    "SMALL_REGISTER",
    "STAGED",
    "STOP",
    "WHICH",
    "Note",
    "Notes",
    "Register",
    "View",
    "anonymous_file",
    "read_note",
    "read_text",
    "register_file",
    "same_file",
    "unpack_note",
]

REGISTER_SIZE = 32768  # bytes: room for the notes of a world of some forty agents; only what is written is held
RESULTS_SIZE = 65536  # bytes, behind it, for results that are not sent yet
DISOWNED_SIZE = 1024  # bytes, at the end of these, for the number of processes, then each
SMALL_REGISTER = 4096  # a page: what a process with the tightest limit on files may have
_NUMBER = struct.Struct("<Q")
_BOTH = struct.Struct("<QQ")
_SOFT = 16
_BEGUN_AT = 24  # s, on the monotonic clock of the system
_HELD = 32  # bytes
_STOP_AT = 40  # the serial from which on no call of the chunk that runs is begun
_RESULTS_AT = 48  # the serial of the first of the results that are not sent yet, and _STAGED_AT
_STAGED_AT = 56  # ... how many there are; those of all calls before the one that has begun are there in any case
_HALT_AT = 80  # not 0: look at _STOP_AT, which is looked at between any two calls anyway, but for very quick ones
_NEXT_AT = 64  # the serial of the attempt that is about to begin, unless it has been taken back
MARKS = 88  # a byte for each attempt that may be in the worker
AHEAD = 256
"""How many attempts may be in a worker at once that are taken back one by one."""
_ROUNDS = 255  # values of a mark, so that one which is left over means no later attempt
_SCRATCH = MARKS + AHEAD  # length, then the path itself
_DOUBLE = struct.Struct("<d")
_PROCESS = struct.Struct("<Qd")  # its id, and when it was started (see process.tree.Identity)
_DISOWNED = REGISTER_SIZE + RESULTS_SIZE - DISOWNED_SIZE
_MOST_DISOWNED = (DISOWNED_SIZE - _NUMBER.size) // _PROCESS.size
# The same places, in a view of the register as numbers of 8 bytes.
BEGUN, BEGUN_AT, STOP, NEXT, HALT = 0, _BEGUN_AT // 8, _STOP_AT // 8, _NEXT_AT // 8, _HALT_AT // 8
RESULTS_FROM, STAGED = _RESULTS_AT // 8, _STAGED_AT // 8
_NOTE = 1024  # where the note that holds begins (0: none), its number, then the arenas; what is before is the path's
_HOLDS = struct.Struct("=Hh")
WHICH = _NOTE // 2  # the place of the first of the two in :attr:`Notes.which`
_NUMBERED = 1 << 15  # in the length: the number belongs to the note
_MOST = (1 << 15) - 1
_FIRST = _NOTE + 8  # note
_NOTE_HEAD = struct.Struct("<HI")  # length, checksum
_DRAINED = 0.00005  # s, within which what a processor has written is seen by others, by far
_LONGEST = 1532  # bytes of a note, its head included: half of what is left of a small register


_REFUSED = (errno.ENOSYS, errno.EPERM, errno.EACCES)  # by an old kernel, or a sandbox


def _memory_file(name: str) -> int:
    """A descriptor of one; -1: there can be none."""
    try:
        return os.memfd_create(name) if hasattr(os, "memfd_create") else -1
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return -1


def anonymous_file(name: str, size: int = 0) -> int:
    """A descriptor of a file without a path, ``size`` bytes long; the caller closes it."""
    fd = _memory_file(name)
    if fd < 0:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    if size:
        os.ftruncate(fd, size)
    return fd


def register_file() -> int:
    """A descriptor of a new register; the caller closes it.

    Raises:
        OSError: there is no descriptor or no memory left, or a file may not have even a page.
    """
    try:
        return anonymous_file("resilient-register", REGISTER_SIZE + RESULTS_SIZE)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
    return anonymous_file("resilient-register", SMALL_REGISTER)


def read_note(fd: int) -> str:
    """What the attempt noted last, by a descriptor of the register; ``""``: nothing, or nothing that is whole."""
    return unpack_note(os.pread(fd, REGISTER_SIZE, 0))


def unpack_note(page: bytes) -> str:
    """What the attempt noted last, by a page that was read; ``""``: nothing, or nothing that is whole."""
    start, number = _HOLDS.unpack_from(page, _NOTE) if len(page) >= SMALL_REGISTER else (0, 0)
    if not _FIRST <= start <= len(page) - _NOTE_HEAD.size:
        return ""
    length, checksum = _NOTE_HEAD.unpack_from(page, start)
    numbered, length = length & _NUMBERED, length & ~_NUMBERED
    data = page[start + _NOTE_HEAD.size :][:length]
    if len(data) != length or zlib.crc32(data) != checksum:
        return ""
    text = data.decode(errors="ignore")  # a note that was cut may end within a character
    return f"{text}{number}" if numbered else text


def read_text(fd: int, start: int = 0, most: int = 1 << 20) -> str:
    """What is written in the file from ``start`` on (``most`` bytes of it), as text."""
    return os.pread(fd, most, start).decode(errors="replace")


def same_file(pid: int, theirs: int, ours: int) -> bool:
    """Whether descriptor ``theirs`` of process ``pid`` is our file ``ours`` (Linux; elsewhere it is taken to be)."""
    if not os.path.isdir("/proc/self/fd"):
        return True
    with contextlib.suppress(OSError):
        there, here = os.stat(f"/proc/{pid}/fd/{theirs}"), os.fstat(ours)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    return False


def mark_of(serial: int) -> int:
    """The mark of an attempt that was taken back, at ``MARKS + serial % AHEAD``."""
    return 1 + serial // AHEAD % _ROUNDS


class View:
    """The parent's side of the register.  Once closed it says that everything has begun, and nothing of anything."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, 0)
        self._barrier = threading.Lock()

    def begun_and_ended(self) -> tuple[int, int]:
        """The serials of the attempt last begun and of the one last ended."""
        begun, ended = _BOTH.unpack_from(self._map)
        return begun, ended

    def begun_at(self) -> float:
        """When the attempt last begun did so, on the monotonic clock of the system (s)."""
        return float(_DOUBLE.unpack_from(self._map, _BEGUN_AT)[0])

    def held(self) -> int:
        """Bytes of earlier attempts that the worker held when the last one with a memory limit began."""
        return int(_NUMBER.unpack_from(self._map, _HELD)[0])

    def take_back(self, serial: int) -> bool:
        """Whether that attempt has not begun, and never will."""
        try:
            self._map[MARKS + serial % AHEAD] = mark_of(serial)
            with self._barrier:  # the processor may not look before others see the mark
                pass
            return bool(_NUMBER.unpack_from(self._map, _NEXT_AT)[0] < serial)
        except ValueError:  # closed
            return False

    def take_back_one(self, serial: int) -> bool:
        """The same for a task in a bundle, of which very quick ones are begun without a barrier."""
        return self.take_back_all(serial, serial) == serial

    def take_back_all(self, serial: int, last: int) -> int:
        """Take these back that have not begun, which are the last of them; the serial of the first that will never."""
        try:
            for one in range(last, serial - 1, -1):
                self._map[MARKS + one % AHEAD] = mark_of(one)
            _NUMBER.pack_into(self._map, _HALT_AT, 1)
            with self._barrier:  # the processor may not look before others see the marks
                pass
            time.sleep(_DRAINED)  # nor may that of the worker, see above
            return max(serial, int(_NUMBER.unpack_from(self._map, _NEXT_AT)[0]) + 1)
        except (ValueError, TypeError):  # closed
            return last + 1

    def has_begun(self, serial: int) -> bool:
        """Whether that attempt has begun, or is to be taken for such."""
        try:
            return bool(_NUMBER.unpack_from(self._map)[0] >= serial)
        except ValueError:  # closed
            return True

    def stop_before(self, serial: int, last: int) -> int:
        """Of a chunk that may run, have no call begin from that serial on, if it has not; which is the first of those.

        ``last``: the serial of the chunk's last call; what is returned is more than that if all have begun.
        """
        try:
            _NUMBER.pack_into(self._map, _STOP_AT, serial)
            _NUMBER.pack_into(self._map, _HALT_AT, 1)
            with self._barrier:  # the processor may not look before others see the number
                pass
            time.sleep(_DRAINED)  # nor may that of the worker, which among very quick calls has no such barrier
            return max(serial, int(_NUMBER.unpack_from(self._map, _NEXT_AT)[0]) + 1)
        except (ValueError, TypeError):  # closed
            return last + 1

    def staged(self) -> tuple[int, int, bytes]:
        """Results that are not sent yet: the serial of the first, how many there are, and what they are."""
        for _ in range(3):
            first, staged = _BOTH.unpack_from(self._map, _RESULTS_AT)
            ahead = _NUMBER.unpack_from(self._map)[0] - first
            count = max(staged, ahead if ahead < RESULTS_SIZE else 0)
            if count <= 0:
                break
            data = self._map[REGISTER_SIZE : REGISTER_SIZE + RESULTS_SIZE]
            if _NUMBER.unpack_from(self._map, _RESULTS_AT)[0] == first:
                return first, count, data
        return 0, 0, b""  # there are none, or they have just been sent

    def raise_soft(self, serial: int) -> None:
        """Name the attempt whose soft timeout is over."""
        _NUMBER.pack_into(self._map, _SOFT, serial)

    def scratch(self) -> str:
        """What the paths of the worker's scratch directories begin with; ``""``: none was made."""
        (length,) = _NUMBER.unpack_from(self._map, _SCRATCH)
        start = _SCRATCH + _NUMBER.size
        return os.fsdecode(self._map[start : start + length]) if 0 < length <= _NOTE - start else ""

    def disowned(self) -> list[tuple[int, float]]:
        """Ids and begins of the processes that are not to be killed with the worker."""
        if len(self._map) <= _DISOWNED:
            return []
        (count,) = _NUMBER.unpack_from(self._map, _DISOWNED)
        start = _DISOWNED + _NUMBER.size
        return [_PROCESS.unpack_from(self._map, start + n * _PROCESS.size) for n in range(min(count, _MOST_DISOWNED))]

    def note(self) -> str:
        """What the attempt noted last; ``""``: nothing, or nothing that is whole."""
        return unpack_note(self._map[:REGISTER_SIZE])

    def close(self) -> None:
        """Give the memory and the descriptor back."""
        self._map.close()


class Note:
    """A note that is made once and may hold often; of more than 1,526 bytes of UTF-8 the end is cut.

    Args:
        text: what it says.
        numbered: whether the number that stands beside the notes when it is read is its end (:meth:`Notes.number`).
    """

    __slots__ = ("packed", "place")

    def __init__(self, text: str, *, numbered: bool = False) -> None:
        data = text.encode(errors="replace")[: _LONGEST - _NOTE_HEAD.size]
        self.packed = _NOTE_HEAD.pack(len(data) | (_NUMBERED if numbered else 0), zlib.crc32(data)) + data
        self.place = 0  # where in the register it stands; 0: nowhere


class Notes:
    """The worker's side of the notes: which stand in the register, and which one holds.

    Attributes:
        which: ``which[WHICH] = note.place or put(note)`` is :meth:`hold`; paths that are hot have it in their own.
    """

    def __init__(self, page: memoryview | bytearray) -> None:
        self._page = page
        self.which = memoryview(page).cast("H")
        middle = (_FIRST + len(page)) // 2
        self._arenas = ((_FIRST, middle), (middle, len(page)))
        self._standing: tuple[list[Note], list[Note]] = ([], [])  # in each of them
        self._free, self._end = self._arenas[0]  # of the one that is filled now
        self._here = self._standing[0]
        self._is_clear = False

    def clear(self) -> None:
        """No note stands there, and none holds."""
        if self._is_clear:
            return
        self._is_clear = True
        self.which[WHICH] = 0
        for arena in (0, 1):
            self._enter(arena)

    def hold(self, note: Note) -> None:
        """Say that it holds; whenever the process ends, a whole note is found."""
        self.which[WHICH] = note.place or self.put(note)

    def number(self, number: int) -> None:
        """Have another number stand beside them, from -1 on; what is too large for its place is the largest there."""
        self.which[WHICH + 1] = min(number, _MOST) & 0xFFFF

    def put(self, note: Note) -> int:
        """Have a note that stands nowhere stand beside the one that holds; where it stands now."""
        self._is_clear = False
        size = len(note.packed)
        if self._free + size > self._end:
            self._enter(1 if self.which[WHICH] < self._arenas[1][0] else 0)  # the one that holds is in the other
        place, self._free = self._free, self._free + size
        self._page[place : place + size] = note.packed
        self._here.append(note)
        note.place = place
        return place

    def _enter(self, arena: int) -> None:
        """Have the next ones stand there, and what stands there stand nowhere."""
        self._free, self._end = self._arenas[arena]
        self._here = self._standing[arena]
        for note in self._here:
            note.place = 0
        self._here.clear()


class Register:
    """The worker's side of the register.

    Attributes:
        page: all of it.
        room: bytes for results that are not sent yet.
        numbers, times: the same, as numbers of 8 bytes, for paths that are hot.
        barrier: whose taking keeps the processor from looking before others see what was written.
    """

    def __init__(self, fd: int) -> None:
        self.page = self._map = mmap.mmap(fd, 0)
        self.barrier = threading.Lock()
        self.numbers, self.times = memoryview(self._map).cast("Q"), memoryview(self._map).cast("d")
        self.notes = Notes(memoryview(self._map)[:REGISTER_SIZE])
        self.room = len(self._map) - REGISTER_SIZE - DISOWNED_SIZE

    def begin(self, serial: int, now: float) -> bool:
        """The attempt begins: from here on it is to blame for what happens to the process.

        ``now``: by the monotonic clock of the system (s).  ``False``: it was taken back, and is not to be begun.
        """
        self.numbers[NEXT] = serial
        with self.barrier:  # the processor may not look before others see that
            pass
        if self.page[MARKS + serial % AHEAD] == mark_of(serial):
            return False
        self.notes.clear()  # the last one's
        self.times[BEGUN_AT] = now
        self.numbers[BEGUN] = serial
        return True

    def hold(self, size: int) -> None:
        """Bytes of earlier attempts that this process holds as the attempt begins."""
        _NUMBER.pack_into(self._map, _HELD, size)

    def noted(self) -> str:
        """What this attempt has noted last."""
        return unpack_note(self._map[:REGISTER_SIZE]) if self.notes.which[WHICH] else ""

    def soft(self) -> int:
        """The serial of the attempt whose soft timeout is over, by the parent's word."""
        return int(_NUMBER.unpack_from(self._map, _SOFT)[0])

    def scratch(self) -> str:
        """What the paths of the scratch directories of this worker begin with; ``""``: none was made yet."""
        (length,) = _NUMBER.unpack_from(self._map, _SCRATCH)
        start = _SCRATCH + _NUMBER.size
        return os.fsdecode(self._map[start : start + length]) if length else ""

    def disown(self, pid: int, started: float) -> bool:
        """That process is not to be killed with this one.  ``False``: there is no room to note that."""
        if len(self._map) <= _DISOWNED:
            return False
        (count,) = _NUMBER.unpack_from(self._map, _DISOWNED)
        if count >= _MOST_DISOWNED:
            return False
        _PROCESS.pack_into(self._map, _DISOWNED + _NUMBER.size + count * _PROCESS.size, pid, started)
        _NUMBER.pack_into(self._map, _DISOWNED, count + 1)  # last, so that half a process is never read
        return True

    def note_scratch(self, path: str) -> None:
        """Note that path; the length last, so that half a path is never read."""
        data = os.fsencode(path)
        _NUMBER.pack_into(self._map, _SCRATCH, 0)
        start = _SCRATCH + _NUMBER.size
        if start + len(data) <= _NOTE:
            self._map[start : start + len(data)] = data
            _NUMBER.pack_into(self._map, _SCRATCH, len(data))

    def end(self, serial: int) -> None:
        """The attempt has ended and its outcome is sent."""
        _NUMBER.pack_into(self._map, 8, serial)
