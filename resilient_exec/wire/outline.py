"""What a script's text says about its top level: where its guards are, and what it binds outside of them."""

from __future__ import annotations

import ast
import functools
from types import CodeType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Outline", "codes_in", "guard_of", "outline_of"]


class Outline:
    """What a script's text says about its top level.

    Attributes:
        guards: first and last line of each block that only the program itself runs, not who imports it.
        names: what is bound outside of them, and not in them.
        plain: those of them that are functions without a decorator.
        does_more: whether anything but imports stands outside of them.
        code: its own.
        codes: the code of each function and class, by its qualified name.
    """

    def __init__(self, scan: _Scan, code: CodeType, codes: dict[str, list[CodeType]]) -> None:
        self.guards = tuple(scan.guards)
        self.names = frozenset(scan.outside - scan.inside)
        self.plain = frozenset(scan.plain)
        self.does_more = scan.does_more
        self.code, self.codes = code, codes

    def is_guarded(self, line: int) -> bool:
        """Whether that line is behind a guard."""
        return any(first <= line <= last for first, last in self.guards)


@functools.lru_cache(maxsize=8)
def outline_of(source: str, path: str) -> Outline:
    """The outline of a text; raises ``SyntaxError`` if it is not Python."""
    tree = ast.parse(source, path)
    scan = _Scan()
    scan.block(tree.body, guarded=False)
    codes: dict[str, list[CodeType]] = {}
    whole = compile(source, path, "exec", dont_inherit=True)
    for code in codes_in(whole):
        codes.setdefault(code.co_qualname, []).append(code)
    return Outline(scan, whole, codes)


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """The codes of the functions and classes that are defined in ``code``."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_in(constant)


class _Scan:
    """Goes through the statements of a module's top level."""

    def __init__(self) -> None:
        self.guards: list[tuple[int, int]] = []
        self.outside: set[str] = set()
        self.inside: set[str] = set()
        self.plain: set[str] = set()
        self.does_more = False

    def block(self, body: list[ast.stmt], *, guarded: bool) -> None:
        for statement in body:
            self._statement(statement, guarded=guarded)

    def _statement(self, statement: ast.stmt, *, guarded: bool) -> None:
        if isinstance(statement, ast.If):
            behind = guard_of(statement.test)
            if not guarded and behind is not None:
                self._guard(statement, behind=behind)
                return
        self._bind(statement, self.inside if guarded else self.outside)
        is_plain = isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement)
        self.does_more = self.does_more or not (guarded or is_plain)
        for inner in _blocks(statement):
            self.block(inner, guarded=guarded)

    def _guard(self, statement: ast.If, *, behind: bool) -> None:
        """An ``if`` of which one block is only the program's own: the first, if ``behind``, else the other."""
        for body, guarded in ((statement.body, behind), (statement.orelse, not behind)):
            if guarded and body:
                self.guards.append((statement.lineno if behind else body[0].lineno, body[-1].end_lineno or 0))
            self.block(body, guarded=guarded)

    def _bind(self, statement: ast.stmt, names: set[str]) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
            if isinstance(statement, ast.FunctionDef) and not statement.decorator_list:
                self.plain.add(statement.name)
            else:
                self.plain.discard(statement.name)
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
            return
        blocks = {id(inner) for body in _blocks(statement) for inner in body}
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                names.add(node.id)
            elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                # What is changed behind the guard is not what workers have; outside it is changed there, too.
                if names is self.inside:
                    names.update(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names.add(node.name)
            waiting += [inner for inner in ast.iter_child_nodes(node) if id(inner) not in blocks]


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of a compound statement that are run with the module's own names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield part.body


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def guard_of(test: ast.expr) -> bool | None:
    """Whether the test holds in the program itself alone (``True``) or where it is imported alone (``False``)."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return True if any(guard_of(part) is True for part in test.values) else None
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = guard_of(test.operand)
        # `not (name is main and x)` may hold in the program, too.
        return None if inner is None or isinstance(test.operand, ast.BoolOp) else not inner
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    sides = (test.left, test.comparators[0])
    is_name = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    is_main = any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
    if is_name and is_main and isinstance(test.ops[0], ast.Eq | ast.NotEq):
        return isinstance(test.ops[0], ast.Eq)
    return None
