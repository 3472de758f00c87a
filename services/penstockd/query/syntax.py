"""Parses AIP-160 text into a tree of comparisons. Nothing here knows a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from penstockd.query.errors import FilterError, shorten_input

MAX_BYTES: Final = 4096
MAX_DEPTH: Final = 32
MAX_COMPARISONS: Final = 100
MAX_STEPS: Final = 16


@dataclass(frozen=True, slots=True)
class Literal:
    """The right-hand side of a comparison, escapes resolved.

    ``leading`` and ``trailing`` state whether the text begins or ends with a wildcard: a ``*`` that
    was not written ``\\*``. The text contains the stars nevertheless, since only strings that are
    compared for equality have wildcards. ``claim``: the text names a claim (see ``rules``).
    """

    text: str
    position: int
    quoted: bool = False
    leading: bool = False
    trailing: bool = False
    claim: bool = False

    @property
    def star(self) -> bool:
        """Whether the whole literal is one wildcard, which asks for presence."""
        return self.text == "*" and self.leading


@dataclass(frozen=True, slots=True)
class Comparison:
    """``steps`` (the name, cut at its dots) stands in a relation to ``literal``."""

    steps: tuple[str, ...]
    comparator: str
    literal: Literal
    position: int

    @property
    def name(self) -> str:
        """The left-hand side, for people."""
        return ".".join(self.steps)


@dataclass(frozen=True, slots=True)
class And:
    """True if all terms are; an empty filter is an And of nothing."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if any term is."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True if the term is not."""

    term: Expression


Expression = And | Or | Not | Comparison


def list_comparisons(expression: Expression) -> Iterator[Comparison]:
    """The comparisons in an expression, from left to right."""
    match expression:
        case And(terms) | Or(terms):
            for term in terms:
                yield from list_comparisons(term)
        case Not(term):
            yield from list_comparisons(term)
        case Comparison():
            yield expression


# As AIP-160 says, OR binds tighter than AND, and adjacent terms are joined by AND.
# A keyword right before a parenthesis is the keyword, not the name of a function. An unquoted
# argument may hold dots and colons and begin with a minus, for numbers and times. A dotted name is
# one token where it can be, and rules are few, since each costs time.
#: A character of unquoted text, within and without names.
_RUN = r"""[^\s"'(),.:=<>!\\]"""
_GRAMMAR = rf"""
start: expression?
?expression: sequence (_AND sequence)*
?sequence: factor+
?factor: term (_OR term)*
?term: (NOT | MINUS)? (restriction | composite)
?composite: _OPEN expression _CLOSE
restriction: (member | function) (COMPARATOR (ARGUMENT | STRING | composite | function))?
member: (TEXT | STRING) ("." (TEXT | STRING | KEYWORD))*
function: FUNCTION (_parameter ("," _parameter)*)? _CLOSE
_parameter: ARGUMENT | STRING | composite | function

_AND: /AND(?!{_RUN})/
_OR: /OR(?!{_RUN})/
NOT: /NOT(?!{_RUN})/
KEYWORD.-1: /(AND|OR|NOT)(?!{_RUN})/
MINUS: "-"
_OPEN: "("
_CLOSE: ")"
COMPARATOR: "<=" | "<" | ">=" | ">" | "!=" | "=" | ":"
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
FUNCTION.3: /(?!(?:AND|OR|NOT)\()(?!-){_RUN}(?:{_RUN}|\.)*\(/
TEXT: /(?!(?:AND|OR|NOT)(?!{_RUN}))(?!-){_RUN}+(?:\.{_RUN}+)*/
ARGUMENT: /(?!(?:AND|OR|NOT)(?!{_RUN}|\.))(?!:)(?:{_RUN}|[.:])+/
%ignore /\s+/
"""


@dataclass(frozen=True, slots=True)
class _Value:
    """A name without a comparison: a value of a list, or a mistake."""

    steps: tuple[str, ...]
    literal: Literal | None
    position: int


@dataclass(frozen=True, slots=True)
class _ListComparison:
    """A comparison with a list of values, as ``status = (LEAD OR ACTIVE)``."""

    steps: tuple[str, ...]
    comparator: str
    values: Any
    position: int


class _Build(Transformer[Token, Any]):
    """Called by the parser for each rule it has read, innermost first."""

    def start(self, parts: list[Any]) -> Any:
        return parts[0] if parts else And(())

    def expression(self, parts: list[Any]) -> Any:
        return _join_terms(And, parts)

    def sequence(self, parts: list[Any]) -> Any:
        return _join_terms(And, parts)

    def factor(self, parts: list[Any]) -> Any:
        return _join_terms(Or, parts)

    def term(self, parts: list[Any]) -> Any:
        sign, term = parts
        if sign.type == "MINUS" and isinstance(term, _Value) and term.literal is not None:
            literal = term.literal
            if not literal.quoted and literal.text[:1].isdigit():
                text = "-" + literal.text
                return _Value((text,), Literal(text, sign.start_pos), sign.start_pos)
        return Not(term)

    def restriction(self, parts: list[Any]) -> Any:
        value: _Value = parts[0]
        if len(parts) == 1:
            return value
        _, comparator, arg = parts
        if isinstance(arg, Token):
            return Comparison(value.steps, str(comparator), _make_literal(arg), value.position)
        return _ListComparison(value.steps, str(comparator), arg, value.position)

    def member(self, parts: list[Token]) -> _Value:
        position = parts[0].start_pos or 0
        literals = [_make_literal(p) for p in parts]
        steps: list[str] = []
        for x in literals:
            steps.extend((x.text,) if x.quoted else x.text.split("."))
        if len(steps) > MAX_STEPS:
            raise FilterError(f"a name may have at most {MAX_STEPS} parts", position)
        if len(literals) == 1:
            return _Value(tuple(steps), literals[0], position)
        if any(x.quoted for x in literals):
            return _Value(tuple(steps), None, position)
        return _Value(
            tuple(steps), _starred_literal(".".join(steps), position, quoted=False), position
        )

    def function(self, parts: list[Any]) -> Any:
        name = str(parts[0])[:-1]
        raise FilterError(
            f"functions are not supported: '{shorten_input(name)}'", parts[0].start_pos
        )


def _join_terms(node: type[And] | type[Or], parts: list[Any]) -> Any:
    """One node for terms of the same relation: ``a AND (b AND c)`` becomes flat."""
    terms: list[Any] = []
    for part in parts:
        terms.extend(part.terms if isinstance(part, node) else (part,))
    return node(tuple(terms))


#: JSON writes a character beyond U+FFFF as two escapes (RFC 8259, 7).
_ESCAPE = re.compile(
    r"\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL
)
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "*": "*", "n": "\n", "r": "\r", "t": "\t"}


def _make_literal(token: Token) -> Literal:
    position = token.start_pos or 0
    if token.type != "STRING":
        return _starred_literal(str(token), position, quoted=False)
    raw = token[1:-1]
    if "\\" not in raw:
        return _starred_literal(raw, position, quoted=True)

    def resolve(match: re.Match[str]) -> str:
        code = match[1]
        text = _decode_units(code) if len(code) > 1 else _ESCAPES.get(code)
        if text is None:
            raise FilterError(f"unknown escape '\\{code}'", position + 1 + match.start())
        if _find_unfit(text):
            raise FilterError(
                f"the escape '\\{code}' is of a character that no value can have",
                position + 1 + match.start(),
            )
        return text

    text = _ESCAPE.sub(resolve, raw)
    backslashes = len(raw[:-1]) - len(raw[:-1].rstrip("\\"))
    return Literal(
        text,
        position,
        quoted=True,
        leading=raw.startswith("*"),
        trailing=raw.endswith("*") and backslashes % 2 == 0,
    )


def _decode_units(code: str) -> str:
    """The character of ``u…``, or of a pair of surrogates."""
    units = b"".join(bytes.fromhex(unit) for unit in code.replace("\\", "").split("u")[1:])
    return units.decode("utf-16-be", "surrogatepass")


def _starred_literal(text: str, position: int, *, quoted: bool) -> Literal:
    return Literal(text, position, quoted, text.startswith("*"), text.endswith("*"))


_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def make_canonical(expression: Expression) -> Any:
    """JSON-ready data that is equal for expressions with the same terms, whatever their order and
    positions in their texts."""
    match expression:
        case Not(term):
            return ["NOT", make_canonical(term)]
        case And(terms) | Or(terms):
            # Each once, in the order of their texts.
            each = {orjson.dumps(c): c for c in map(make_canonical, terms)}
            relation = "AND" if isinstance(expression, And) else "OR"
            return [relation, *[each[text] for text in sorted(each)]]
    given = expression.literal
    stars = given.leading, given.trailing
    literal = [given.text, given.quoted, given.claim, *stars]
    return ["IS", expression.steps, expression.comparator, literal]


def is_storable(text: str) -> bool:
    """Whether a text holds only characters that values can hold."""
    return _find_unfit(text) is None


def _find_unfit(text: str) -> re.Match[str] | None:
    """The position of a character that neither PostgreSQL nor XML can carry."""
    return _UNFIT.search(text)


_PARSER = Lark(
    _GRAMMAR,
    parser="lalr",
    lexer="contextual",
    propagate_positions=False,  # tokens have their own positions, and no other is needed
    maybe_placeholders=False,
    transformer=_Build(),
)

_PARENTHESES = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[()]""", re.DOTALL)


@lru_cache(maxsize=1024)
def parse_filter(text: str) -> Expression:
    """The tree of an AIP-160 filter; an empty one matches every record.

    Raises FilterError, with the position, if the text breaks the grammar or a limit: 4 KiB of
    UTF-8, parentheses 32 deep, 100 comparisons, 16 steps in a name; or if it uses an unsupported
    feature: functions, and bare values that would search every field.
    """
    _check_text(text)
    try:
        raw = _PARSER.parse(text)
    except UnexpectedInput as exc:
        raise _syntax_error(text, exc) from None
    settled = _Settle()
    return settled(raw, None)


def _check_text(text: str) -> None:
    if unfit := _find_unfit(text):
        words = "a filter cannot contain a character that no value can have"
        raise FilterError(words, unfit.start())
    if len(text) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise FilterError(f"a filter may be at most {MAX_BYTES} bytes long")
    if text.count("(") <= MAX_DEPTH:
        return
    depth = 0
    for match in _PARENTHESES.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            words = f"a filter may be nested at most {MAX_DEPTH} levels deep"
            raise FilterError(words, match.start())


def _syntax_error(text: str, exc: UnexpectedInput) -> FilterError:
    if isinstance(exc, UnexpectedEOF) or (
        isinstance(exc, UnexpectedToken) and exc.token.type == "$END"
    ):
        return FilterError("the filter ends too early", len(text))
    position = exc.pos_in_stream if exc.pos_in_stream is not None else 0
    if isinstance(exc, UnexpectedToken):
        return FilterError(f"unexpected '{shorten_input(str(exc.token))}'", position)
    if isinstance(exc, UnexpectedCharacters) and text[position] in "\"'":
        if _PARENTHESES.match(text, position):
            return FilterError("unexpected quoted string", position)
        return FilterError("a quoted string is not closed", position)
    return FilterError(f"unexpected '{text[position : position + 1]}'", position)


class _Settle:
    """Attaches listed values to their field, refuses bare values and counts comparisons."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, node: Any, subject: _ListComparison | None) -> Expression:
        match node:
            case And(terms):
                return And(tuple(self(t, subject) for t in terms))
            case Or(terms):
                return Or(tuple(self(t, subject) for t in terms))
            case Not(term):
                return Not(self(term, subject))
            case _Value():
                return self._value(node, subject)
        if subject is not None:
            raise FilterError("a list of values cannot contain comparisons", node.position)
        if isinstance(node, _ListComparison):
            return self(node.values, node)
        return self._count_comparison(node)

    def _value(self, value: _Value, subject: _ListComparison | None) -> Expression:
        if subject is None:
            raise FilterError(
                f"a bare value is not supported: '{shorten_input('.'.join(value.steps))}'; "
                "compare a field with it, as name = value",
                value.position,
            )
        if value.literal is None:
            raise FilterError("a value cannot be a quoted name", value.position)
        return self._count_comparison(
            Comparison(subject.steps, subject.comparator, value.literal, subject.position)
        )

    def _count_comparison(self, comparison: Comparison) -> Comparison:
        self.count += 1
        if self.count > MAX_COMPARISONS:
            raise FilterError(
                f"a filter may contain at most {MAX_COMPARISONS} comparisons", comparison.position
            )
        return comparison
