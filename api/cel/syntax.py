"""From the text of an expression to its tree.

Theory of operation. A lexer cuts the text into tokens; a parser with one function for each level of precedence makes
the tree, in which an operator is a call of a function of its name (``_+_``, ``!_``), as the language's definition has
it. Macros (``has``, ``all``, ``map``, ...) are recognized by the evaluator: to the parser they are calls.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

LONGEST = 16_384  # characters of an expression
DEEPEST = 60  # parentheses, calls and unary operators within each other
HIGHEST = 100  # nodes of a tree above each other: to build and to evaluate one takes several frames of the stack


class CelSyntaxError(ValueError):
    """The text is no expression; the message says where."""


class Literal(NamedTuple):
    """A constant."""

    value: Any


class Name(NamedTuple):
    """A variable."""

    name: str


class Select(NamedTuple):
    """``operand.field``; with ``optional``: ``operand.?field``."""

    operand: "Node"
    field: str
    optional: bool = False


class Call(NamedTuple):
    """A function, a method of ``target``, or an operator."""

    function: str
    arguments: tuple["Node", ...]
    target: "Node | None" = None


class ListOf(NamedTuple):
    """``[a, b]``."""

    items: tuple["Node", ...]


class MapOf(NamedTuple):
    """``{a: b}``."""

    entries: tuple[tuple["Node", "Node"], ...]


Node = Literal | Name | Select | Call | ListOf | MapOf

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|//[^\n]*)+)
      | (?P<string>[bB]?[rR]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
                 | "(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
                 | [rR][bB]?(?:"[^"\n]*"|'[^'\n]*'))
      | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
      | (?P<integer>0[xX][0-9a-fA-F]+|\d+)(?P<unsigned>[uU])?
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign>\|\||&&|==|!=|<=|>=|\.\?|\[\?|[-+*/%!<>=?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void while".split()
)
_CONSTANTS = {"true": True, "false": False, "null": None}
_BINARY: Sequence[tuple[str, ...]] = (
    ("||",), ("&&",), ("<", "<=", ">=", ">", "==", "!=", "in"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class _Token(NamedTuple):
    kind: str  # "string", "float", "integer", "name", "sign" or "end"
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise CelSyntaxError(f"Syntax error: token recognition error at: '{text[at : at + 10]}'")
        kind = match.lastgroup or ""
        kind = "integer" if kind == "unsigned" else kind
        if kind != "space":
            found.append(_Token(kind, match[0], at))
        at = match.end()
    found.append(_Token("end", "<EOF>", at))
    return found


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


def parse(text: str) -> Node:
    """Return the tree of an expression; raises CelSyntaxError."""
    if len(text) > LONGEST:
        raise CelSyntaxError(f"expression is longer than {LONGEST} characters")
    parser = _Parser(_tokens(text))
    tree = parser.expression()
    parser.expect("<EOF>")
    _check_height(tree)
    return tree


def parts(node: Node) -> Iterator[Node]:
    """Yield the nodes right below one."""
    match node:
        case Select(operand):
            yield operand
        case Call(_, arguments, target):
            yield from arguments
            if target is not None:
                yield target
        case ListOf(items):
            yield from items
        case MapOf(entries):
            for key, value in entries:
                yield from (key, value)


def _check_height(tree: Node) -> None:
    """Raise CelSyntaxError for a tree that nobody could climb: ``a.b.b.b``, ``1+1+1`` grow without a parenthesis."""
    level = [tree]
    for _ in range(HIGHEST):
        level = [below for node in level for below in parts(node)]
        if not level:
            return
    raise CelSyntaxError(f"expression is more than {HIGHEST} operations deep")


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _accept(self, *texts: str) -> str:
        token = self._peek()
        if token.kind in ("sign", "name", "end") and token.text in texts:
            self._at += 1
            return token.text
        return ""

    def expect(self, text: str) -> None:
        token = self._peek()
        if not (token.kind in ("sign", "end") and token.text == text):
            raise CelSyntaxError(f"Syntax error: mismatched input '{token.text}' expecting '{text}' at {token.at}")
        self._at += 1

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise CelSyntaxError(f"expression is nested deeper than {DEEPEST}")
        condition = self._binary(0)
        if self._accept("?"):
            yes = self._binary(0)
            self.expect(":")
            condition = Call("_?_:_", (condition, yes, self.expression()))
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        if level < 2:
            return self._any_order(level, left)
        while operator := self._accept(*_BINARY[level]):
            left = Call(f"_{operator}_" if operator != "in" else "@in", (left, self._binary(level + 1)))
        return left

    def _any_order(self, level: int, first: Node) -> Node:
        """Return ``a && b && c && d`` as ``(a && b) && (c && d)``: it means the same, and the tree is low."""
        (operator,) = _BINARY[level]
        row = [first]
        while self._accept(operator):
            row.append(self._binary(level + 1))
        while len(row) > 1:
            pairs = [Call(f"_{operator}_", (a, b)) for a, b in zip(row[::2], row[1::2], strict=False)]
            row = [*pairs, *row[len(pairs) * 2 :]]
        return row[0]

    def _unary(self) -> Node:
        signs = []
        while sign := self._accept("!", "-"):
            signs.append(sign)
            if len(signs) > DEEPEST:
                raise CelSyntaxError(f"expression is nested deeper than {DEEPEST}")
        number = self._peek()
        if signs and signs[-1] == "-" and number.kind in ("integer", "float") and number.text[-1] not in "uU":
            # The smallest integer has no positive counterpart, so the sign belongs to the number.
            signs.pop()
            self._tokens[self._at] = number._replace(text=f"-{number.text}")
        node = self._member()
        for sign in reversed(signs):
            node = Call(f"{sign}_", (node,))
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if sign := self._accept(".", ".?"):
                token = self._next()
                if token.kind != "name":
                    raise CelSyntaxError(f"Syntax error: no field name at {token.at}")
                if sign == "." and self._accept("("):
                    node = Call(token.text, self._list(")"), node)
                else:
                    node = Select(node, token.text, optional=sign == ".?")
            elif sign := self._accept("[", "[?"):
                index = self.expression()
                self.expect("]")
                node = Call("_[_]" if sign == "[" else "_[?_]", (node, index))
            else:
                return node

    def _list(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._accept(end):
            if items:
                self.expect(",")
                if end != ")" and self._accept(end):
                    break
            items.append(self.expression())
        return tuple(items)

    def _primary(self) -> Node:
        token = self._next()
        match token.kind:
            case "string":
                return Literal(_string(token.text))
            case "float":
                return Literal(float(token.text))
            case "integer":
                return Literal(_integer(token.text))
            case "name":
                return self._named(token)
        match token.text:
            case "(":
                inner = self.expression()
                self.expect(")")
                return inner
            case "[":
                return ListOf(self._list("]"))
            case "{":
                return self._map()
            case ".":
                return self._named(self._next())
        raise CelSyntaxError(f"Syntax error: mismatched input '{token.text}' at {token.at}")

    def _named(self, token: _Token) -> Node:
        if token.text in _CONSTANTS:
            return Literal(_CONSTANTS[token.text])
        if token.kind != "name" or token.text in _RESERVED or token.text == "in":
            raise CelSyntaxError(f"Syntax error: '{token.text}' is a reserved identifier at {token.at}")
        if self._accept("("):
            return Call(token.text, self._list(")"))
        return Name(token.text)

    def _map(self) -> Node:
        entries: list[tuple[Node, Node]] = []
        while not self._accept("}"):
            if entries:
                self.expect(",")
                if self._accept("}"):
                    break
            key = self.expression()
            self.expect(":")
            entries.append((key, self.expression()))
        return MapOf(tuple(entries))


def _integer(text: str) -> int:
    unsigned = text[-1] in "uU" and "x" not in text[:-1].lower().removesuffix("u")[-1:]
    number = int(text.rstrip("uU"), 0) if "x" in text.lower() else int(text.rstrip("uU"))
    if not (0 if unsigned else -(2**63)) <= number < (2**64 if unsigned else 2**63):
        raise CelSyntaxError(f"invalid {'uint' if unsigned else 'int'} literal: {text}")
    return Uint(number) if unsigned else number


def _string(text: str) -> str | bytes:
    start = text.index('"') if "'" not in text or -1 < text.find('"') < text.index("'") else text.index("'")
    prefix, body = text[:start].lower(), text[start:]
    width = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1
    body = body[width:-width]
    if "b" in prefix:
        return body.encode() if "r" in prefix else _unescaped(body, of_bytes=True).encode("latin-1")
    return body if "r" in prefix else _unescaped(body, of_bytes=False)


def _unescaped(body: str, *, of_bytes: bool) -> str:
    def plain(match: re.Match[str]) -> str:
        text = match[1]
        if text[0] in "xX":
            return chr(int(text[1:], 16))
        if text[0] in "uU":
            number = int(text[1:], 16)
            if of_bytes or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                raise CelSyntaxError(f"invalid escape sequence: \\{text}")
            return chr(number)
        if text[0].isdigit():
            return chr(int(text, 8))
        if text in "\\?\"'`":
            return text
        if text in _ESCAPES:
            return _ESCAPES[text]
        raise CelSyntaxError(f"invalid escape sequence: \\{text}")

    if of_bytes:
        body = body.encode().decode("latin-1")
    return re.sub(
        r"\\([xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", plain, body, flags=re.DOTALL
    )
