"""Log records as lines of JSON: nothing in them is unpickled where they arrive, and no line is too long to be sent.

The text is formatted where the record was made, and an exception travels as the text of its traceback.  What else a
record has (``extra=``) travels as it is where it is a plain number or text, and by its ``repr`` where it is not.
"""

from __future__ import annotations

import ast
import json
import logging
from typing import TYPE_CHECKING, Any

from resilient_exec.model.summary import named
from resilient_exec.model.worker_errors import SoftTimeout

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["LONGEST", "key_as_sent", "pack", "pack_dropped", "unpack"]

LONGEST = 48 << 10  # bytes of a line, and of a message
_LONGEST_TEXT = 8 << 10  # characters of each text of a record that would be too long otherwise
_CUT = " [... cut]"
_PLAIN = (type(None), bool, int, float, str)
_NOT_SENT = frozenset(("args", "exc_info", "msg", "message"))  # in their place: the text, and the traceback's


def pack(record: logging.LogRecord, key: Hashable, attempt: int) -> bytes:
    """The record, of an attempt at a task (0: of none), as a line without its end."""
    fields = {name: _plain(value) for name, value in record.__dict__.items() if name not in _NOT_SENT}
    fields["msg"] = _text_of(record)
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    if "task_attempt" not in fields:  # else it comes from a pool inside the task
        fields["task_key"] = _key(key) if attempt else None
        fields["task_attempt"] = attempt or None
    line = json.dumps(fields).encode()
    if len(line) > LONGEST:
        line = json.dumps({name: _cut(value) for name, value in list(fields.items())[:40]}).encode()
    return line if len(line) <= LONGEST else json.dumps({"msg": _cut(fields["msg"])}).encode()


def key_as_sent(key: Hashable) -> Hashable:
    """What a key is where its records arrive."""
    return key if _is_literal(key) else named(key)


def pack_dropped(count: int) -> bytes:
    """That so many records were dropped, as a line without its end."""
    return json.dumps({"dropped": count}).encode()


def unpack(line: bytes) -> tuple[logging.LogRecord | None, int]:
    """The record, if the line is one, and how many were dropped, if that is what it says.

    Raises:
        ValueError: it is neither.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("a record is an object")  # noqa: TRY004  of JSON
    if fields.keys() == {"dropped"}:
        return None, int(fields["dropped"])
    fields["task_key"] = _key_of(fields.get("task_key"))
    if fields.get("exc_text") is None:
        fields["exc_text"] = None
    return logging.makeLogRecord({"name": "resilient_exec.task", "levelno": logging.INFO, **fields}), 0


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except SoftTimeout:  # not of the formatting: it came in meanwhile
        raise
    except Exception as error:  # not as many placeholders as arguments, a __str__ that raises
        return f"{record.msg!s} [its arguments could not be formatted: {type(error).__name__}: {error}]"


def _plain(value: object) -> Any:
    if type(value) in _PLAIN:
        return value
    return value.__str__() if isinstance(value, str) else named(value)


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + _CUT


def _key(key: Hashable) -> Any:
    """Plain keys as they are; tuples of them and bytes as a literal; others as their ``repr``."""
    if type(key) in _PLAIN:
        return key
    return {"literal" if _is_literal(key) else "text": named(key)}


def _is_literal(key: object) -> bool:
    return type(key) in (*_PLAIN, bytes) or (type(key) is tuple and all(map(_is_literal, key)))


def _key_of(found: Any) -> Hashable:
    if not isinstance(found, dict):
        return found  # type: ignore[no-any-return]
    return ast.literal_eval(found["literal"]) if "literal" in found else str(found.get("text"))
