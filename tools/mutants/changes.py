"""Which small faults can be put into a file of source? Each replaces one stretch of text.

Left alone: annotations, decorators, texts, and what is raised (its message is for people). Other changes are made of
comparisons, arithmetic, logic, conditions, numbers, jumps, and of statements that are done for their effect.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
_COUNTED = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
_JOINED = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
_NAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file. Places count bytes of the source; lines count from 1."""

    file: str  # from the root, with forward slashes
    line: int
    last_line: int
    start: int
    end: int
    old: str
    new: str
    loading: bool  # its line runs when the file is imported
    source: str  # hash of the file as it was

    @property
    def name(self) -> str:
        """The same for the same change of the same source."""
        return hashlib.sha256(f"{self.file} {self.source} {self.start} {self.new}".encode()).hexdigest()[:12]

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants_of(source: bytes, file: str) -> list[Mutant]:
    """All changes of a file that still compile, in the order of their places."""
    found = set(_Finder(source, file).walk(ast.parse(source), loading=True))
    return sorted(
        (one for one in found if _compiles(one.applied(source))), key=lambda one: (one.start, one.end, one.new)
    )


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Finder:
    """Walks a tree and says what could be changed."""

    def __init__(self, source: bytes, file: str) -> None:
        self.source, self.file = source, file
        self.hash = hashlib.sha256(source).hexdigest()
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def walk(self, node: ast.AST, loading: bool) -> Iterator[Mutant]:
        for old, new, start, end in self._changes(node):
            yield self._mutant(node, loading, start, end, old, new)
        inner = loading and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for name, child in _children(node):
            yield from self.walk(child, inner if name == "body" else loading)

    def _mutant(self, node: ast.AST, loading: bool, start: int, end: int, old: str, new: str) -> Mutant:
        lines = (node.lineno, node.end_lineno)  # type: ignore[attr-defined]
        line = self.source.count(b"\n", 0, start) + 1
        return Mutant(self.file, line, max(line, lines[1]), start, end, old, new, loading, self.hash)

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, str, int, int]]:
        """Old text, new text, where it starts and ends."""
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
                yield from self._between(left, right, _COMPARED.get(type(operator)))
        elif isinstance(node, ast.BinOp) and not any(map(_is_text, (node.left, node.right))):
            yield from self._between(node.left, node.right, _COUNTED.get(type(node.op)))
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._between(left, right, _JOINED[type(node.op)])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield (*self._whole(node, self._text(node.operand)),)
        elif isinstance(node, ast.Constant):
            yield from self._constant(node)
        elif isinstance(node, ast.Name) and node.id in _NAMED:
            yield (*self._whole(node, _NAMED[node.id]),)
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield (*self._whole(node.test, f"not ({self._text(node.test)})"),)
        if isinstance(node, ast.AugAssign | ast.Raise | ast.Delete) or _acts(node):
            yield (*self._whole(node, "pass"),)
        if isinstance(node, ast.Break | ast.Continue):
            yield (*self._whole(node, "continue" if isinstance(node, ast.Break) else "break"),)

    def _constant(self, node: ast.Constant) -> Iterator[tuple[str, str, int, int]]:
        if isinstance(node.value, bool):
            yield self._whole(node, str(not node.value))
        elif isinstance(node.value, int):
            yield self._whole(node, str(node.value + 1))
        elif isinstance(node.value, float):
            yield self._whole(node, repr(node.value * 2 if node.value else 1.0))

    def _between(
        self, left: ast.expr, right: ast.expr, change: tuple[str, str] | None
    ) -> Iterator[tuple[str, str, int, int]]:
        if change is None:
            return
        start, end = self._span(left)[1], self._span(right)[0]
        pattern = rb"(?<!\w)" + rb"\s+".join(re.escape(word.encode()) for word in change[0].split()) + rb"(?!\w)"
        pattern = pattern if change[0][0].isalpha() else re.escape(change[0].encode())
        if place := re.search(pattern, self.source[start:end]):
            yield place[0].decode(), change[1], start + place.start(), start + place.end()

    def _whole(self, node: ast.AST, new: str) -> tuple[str, str, int, int]:
        start, end = self._span(node)
        return self.source[start:end].decode(), new, start, end

    def _span(self, node: ast.AST) -> tuple[int, int]:
        first, column, last, end = (getattr(node, k) for k in ("lineno", "col_offset", "end_lineno", "end_col_offset"))
        return self.starts[first - 1] + column, self.starts[last - 1] + end

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _acts(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Where to look further: not in annotations, decorators, formatted texts, or what is raised."""
    if isinstance(node, ast.JoinedStr | ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield name, child
