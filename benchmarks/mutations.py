"""The mutations of `mutate.py`: which places of the package can be changed, and to what."""

import ast
import difflib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/unstir")
ROOMS = (
    "randomness.py", "significance.py", "pixels.py", "chain.py", "theory", "nn", "diffusion", "data", "runs", "train",
    "generate", "edit", "metrics", "insight",
)  # fmt: skip
"""The rooms in which every line decides a result; pictures and texts are not among them."""

OPERATORS: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*",
    ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*", ast.And: "or", ast.Or: "and", ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
SYMBOLS: dict[type[ast.AST], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.And: "and", ast.Or: "or", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A change of ``file`` (below the package): the text from ``begin`` to ``end`` becomes ``new``."""

    file: Path
    begin: int
    end: int
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.begin] + self.new + text[self.end :]


class Places(ast.NodeVisitor):
    """All mutations of a file, in the order of its text."""

    def __init__(self, file: Path) -> None:
        self.file, self.text = file, (ROOT / PACKAGE / file).read_text()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = self.text.splitlines(keepends=True)
        self.found: list[Mutation] = []
        self.visit(ast.parse(self.text))

    def at(self, line: int, column: int) -> int:
        """The place in the text of a place in the syntax tree, whose columns count bytes."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends in the text."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def between(self, left: ast.expr, right: ast.expr, operator: ast.AST) -> None:
        """The operator between two operands becomes another."""
        kind = type(operator)
        begin, end = self.span(left)[1], self.span(right)[0]
        symbol = SYMBOLS.get(kind)
        if symbol and self.text[begin:end].count(symbol) == 1:
            place = begin + self.text[begin:end].index(symbol)
            self.found.append(Mutation(self.file, place, place + len(symbol), OPERATORS[kind]))

    def visit_Compare(self, node: ast.Compare) -> None:
        """Each comparison of a chain."""
        for left, operator, right in zip((node.left, *node.comparators), node.ops, node.comparators, strict=False):
            self.between(left, right, operator)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Arithmetic, but not that of texts."""
        if not any(isinstance(part, ast.JoinedStr) or _is_text(part) for part in (node.left, node.right)):
            self.between(node.left, node.right, node.op)
            self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """The first of a row of and's or or's."""
        self.between(node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A number is one more, half or double; True and False change places."""
        begin, end = self.span(node)
        if isinstance(node.value, bool):
            self.found.append(Mutation(self.file, begin, end, str(not node.value)))
        elif isinstance(node.value, int):
            self.found.append(Mutation(self.file, begin, end, str(node.value + 1)))
        elif isinstance(node.value, float):
            self.found.append(Mutation(self.file, begin, end, repr(node.value * 2 if node.value else 0.5)))

    def visit_If(self, node: ast.If | ast.IfExp | ast.While) -> None:
        """A condition is negated."""
        begin, end = self.span(node.test)
        self.found.append(Mutation(self.file, begin, end, f"not ({self.text[begin:end]})"))
        self.generic_visit(node)

    visit_IfExp = visit_While = visit_If  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call whose result is not used is left out; docstrings are not mutated."""
        if isinstance(node.value, ast.Call):
            self.found.append(Mutation(self.file, *self.span(node), "pass"))
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """The text of an error is not mutated."""

    visit_JoinedStr = visit_Import = visit_ImportFrom = visit_Raise  # noqa: N815

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Bodies and defaults; annotations are not mutated."""
        for each in (*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body):
            self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value alone."""
        if node.value:
            self.visit(node.value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def places(rooms: list[str]) -> list[Mutation]:
    """All mutations of these rooms."""
    files = [
        path.relative_to(ROOT / PACKAGE)
        for room in rooms
        for path in ([ROOT / PACKAGE / room] if room.endswith(".py") else sorted((ROOT / PACKAGE / room).rglob("*.py")))
    ]
    return [mutation for file in files for mutation in Places(file).found]


def shown(mutation: Mutation) -> str:
    """A mutation as a diff without context."""
    before = (ROOT / PACKAGE / mutation.file).read_text()
    changed = difflib.unified_diff(before.splitlines(), mutation.applied(before).splitlines(), n=0, lineterm="")
    lines = [line for line in changed if not line.startswith(("---", "+++"))]
    return "\n".join([f"  {mutation.file}", *(f"  {line}" for line in lines)])
