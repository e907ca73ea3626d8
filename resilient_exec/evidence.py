"""Memory that a worker and its lane share, and that outlives the worker: what it had begun, where it stood.

Two anonymous files (``memfd``: no path, nothing to clean up, no disk to fill) are inherited by the worker.

* The **register** is mapped by the worker: the serial of the attempt last begun, of the one last ended, and of the one
  that is to be told of its soft timeout (which the parent writes), then where its scratch directories are, and what the
  task noted last.  Writing is a store to memory, so it is true however the process ends, and blame is read, not
  guessed.  Of notes there are two places, used in turns, and a byte that says which one holds: a process that ends
  while it writes leaves the note before.  Each has a checksum, for two threads that write at once.
* The **stacks** file is where ``faulthandler`` writes when it is asked by a signal: a C-level handler that works
  even under a held GIL.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import zlib

__all__ = [
    "FIRST",
    "REGISTER_SIZE",
    "SECOND",
    "WHICH",
    "PackedNote",
    "Register",
    "anonymous_file",
    "pack_note",
    "read_note",
    "read_register",
    "read_scratch",
    "read_text",
    "same_file",
    "unpack_note",
    "write_soft",
]

REGISTER_SIZE = 4096  # a page: what a process with the tightest limit on files may have
_NUMBER = struct.Struct("<Q")
_BOTH = struct.Struct("<QQ")
_SOFT = 16
_SCRATCH = 64  # length, then the path itself
_NOTE = 1024  # which of the two places holds the note, then the places themselves; what is before is the path's
_NO_NOTE, FIRST, SECOND = 0, 1, 2
WHICH = _NOTE  # the place of the byte that says which
_NOTE_HEAD = struct.Struct("<HI")  # length, checksum
_NOTE_ROOM = 1532  # bytes of a place, its head included
_PLACES = {FIRST: _NOTE + 8, SECOND: _NOTE + 8 + _NOTE_ROOM}


def anonymous_file(name: str, size: int = 0) -> int:
    """A descriptor of a file without a path, ``size`` bytes long; the caller closes it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    if size:
        os.ftruncate(fd, size)
    return fd


def read_register(fd: int) -> tuple[int, int]:
    """The serials of the attempt last begun and last ended, by the parent's own descriptor."""
    begun, ended = _BOTH.unpack(os.pread(fd, _BOTH.size, 0))
    return begun, ended


def write_soft(fd: int, serial: int) -> None:
    """Name the attempt whose soft timeout is over."""
    os.pwrite(fd, _NUMBER.pack(serial), _SOFT)


def read_scratch(fd: int) -> str:
    """What the paths of the worker's scratch directories begin with; ``""``: none was made."""
    (length,) = _NUMBER.unpack(os.pread(fd, _NUMBER.size, _SCRATCH))
    if not 0 < length <= _NOTE - _SCRATCH - _NUMBER.size:
        return ""
    return os.fsdecode(os.pread(fd, length, _SCRATCH + _NUMBER.size))


def pack_note(text: str) -> bytes:
    """A note as it is kept, for :meth:`Register.note`; of UTF-8 that fills its place and more, the end is cut."""
    data = text.encode(errors="replace")[: _NOTE_ROOM - _NOTE_HEAD.size]
    return _NOTE_HEAD.pack(len(data), zlib.crc32(data)) + data


class PackedNote:
    """A note that is made once and written often; paths that are hot have the body of :meth:`write_to` in their own."""

    __slots__ = ("first", "packed", "second")

    def __init__(self, text: str) -> None:
        self.packed = pack_note(text)
        self.first, self.second = (slice(start, start + len(self.packed)) for start in _PLACES.values())

    def write_to(self, page: mmap.mmap | bytearray) -> None:
        """Write it where the last note is not, and then say so: whenever the process ends, a whole note is found."""
        if page[WHICH] == FIRST:
            page[self.second], page[WHICH] = self.packed, SECOND
        else:
            page[self.first], page[WHICH] = self.packed, FIRST


def read_note(fd: int) -> str:
    """What the attempt noted last; ``""``: nothing, or nothing that is whole."""
    return unpack_note(os.pread(fd, REGISTER_SIZE, 0))


def unpack_note(page: bytes) -> str:
    """The same of a page that was read."""
    held = page[_NOTE:]
    place = _PLACES.get(held[0] if held else _NO_NOTE)
    if place is None:
        return ""
    start = place - _NOTE
    length, checksum = _NOTE_HEAD.unpack_from(held, start)
    data = held[start + _NOTE_HEAD.size : start + _NOTE_ROOM][:length]
    if len(data) != length or zlib.crc32(data) != checksum:
        return ""
    return data.decode(errors="ignore")  # a note that was cut may end within a character


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


class Register:
    """The worker's side of the register."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, REGISTER_SIZE)

    def begin(self, serial: int) -> None:
        """The attempt has begun: from here on it is to blame for what happens to the process."""
        self._map[_NOTE] = _NO_NOTE  # the last one's
        _NUMBER.pack_into(self._map, 0, serial)

    @property
    def page(self) -> mmap.mmap:
        """What notes are written to (:class:`PackedNote`)."""
        return self._map

    def note(self, packed: bytes) -> None:
        """Note what the attempt is at, packed by :func:`pack_note`; costs a fraction of a microsecond."""
        register = self._map
        place = SECOND if register[_NOTE] == FIRST else FIRST
        start = _PLACES[place]
        register[start : start + len(packed)] = packed
        register[_NOTE] = place

    def soft(self) -> int:
        """The serial of the attempt whose soft timeout is over, by the parent's word."""
        return int(_NUMBER.unpack_from(self._map, _SOFT)[0])

    def scratch(self) -> str:
        """What the paths of the scratch directories of this worker begin with; ``""``: none was made yet."""
        (length,) = _NUMBER.unpack_from(self._map, _SCRATCH)
        start = _SCRATCH + _NUMBER.size
        return os.fsdecode(self._map[start : start + length]) if length else ""

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
