"""Row rules: filters of grants, in which ``claims.org`` stands for a claim of the caller.

A claim is a value, on the right of ``=``, ``!=`` or ``:`` and in lists of values, never quoted:
``organization_id = claims.org``, ``customer.source = (claims.source OR "web")``. A claim that has
several values is equal to a field that holds any of them, and differs from one that holds none.

A caller that lacks a claim of a rule sees no row by that rule, even if the claim stands under NOT
or !=. The same holds for a claim that is no value of the field. Callers' own filters know no
claims: there ``claims.org`` is a text like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from penstockd.query.errors import FilterError, shorten_input
from penstockd.query.names import Names
from penstockd.query.resolve import resolve_comparison
from penstockd.query.syntax import (
    And,
    Expression,
    Literal,
    Not,
    Or,
    is_storable,
    list_comparisons,
    parse_filter,
)

#: The allowed names of claims.
CLAIM_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: A claim with more values than this, or a longer one, counts as missing.
MAX_VALUES: Final = 100
MAX_VALUE_LENGTH: Final = 1024

_PREFIX: Final = "claims."
_COMPARATORS: Final = ("=", "!=", ":")


@dataclass(frozen=True, slots=True)
class Rule:
    """A row rule, and the names of the claims that it uses, in order of name."""

    expression: Expression
    claims: tuple[str, ...]

    def bound(self, claims: Mapping[str, Sequence[str]]) -> Expression | None:
        """The filter for a caller with these claims; None if it sees no row."""
        if not all(_is_usable(claims.get(name, ())) for name in self.claims):
            return None
        return _bind_claims(self.expression, claims) if self.claims else self.expression

    def check(self, names: Names) -> None:
        """Raise FilterError if the rule does not fit a dataset, whatever the caller's claims."""
        for comparison in list_comparisons(self.expression):
            resolve_comparison(comparison, names)


@lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """The rule of a text; an empty one shows every row.

    Raises FilterError as ``parse_filter`` does, and for a claim under another comparator or with
    an invalid name.
    """
    expression = _mark_claims(parse_filter(text))
    found = {claim_of(c.literal) for c in list_comparisons(expression) if c.literal.claim}
    return Rule(expression, tuple(sorted(found)))


def claim_of(literal: Literal) -> str:
    """The name of the claim that a literal stands for."""
    return literal.text.removeprefix(_PREFIX)


def _mark_claims(expression: Expression) -> Expression:
    """The expression with its claims marked."""
    match expression:
        case And(terms):
            return And(tuple(map(_mark_claims, terms)))
        case Or(terms):
            return Or(tuple(map(_mark_claims, terms)))
        case Not(term):
            return Not(_mark_claims(term))
    literal = expression.literal
    if literal.quoted or not literal.text.startswith(_PREFIX):
        return expression
    if not CLAIM_NAME.fullmatch(claim_of(literal)):
        raise FilterError(f"'{shorten_input(literal.text)}' is not a claim", literal.position)
    if expression.comparator not in _COMPARATORS:
        raise FilterError(
            "a claim may have several values and has no order: compare it with =, != or :",
            expression.position,
        )
    return replace(expression, literal=replace(literal, claim=True))


def _is_usable(values: Sequence[str]) -> bool:
    """Whether the caller has the claim, with values that can be compared."""
    return 0 < len(values) <= MAX_VALUES and all(
        0 < len(v) <= MAX_VALUE_LENGTH and is_storable(v) for v in values
    )


def _bind_claims(expression: Expression, claims: Mapping[str, Sequence[str]]) -> Expression:
    match expression:
        case And(terms):
            return And(tuple(_bind_claims(t, claims) for t in terms))
        case Or(terms):
            return Or(tuple(_bind_claims(t, claims) for t in terms))
        case Not(term):
            return Not(_bind_claims(term, claims))
    literal = expression.literal
    if not literal.claim:
        return expression
    # Quoted, so that a claim's value never acts as a wildcard, a null or another claim.
    each = tuple(
        replace(expression, literal=Literal(value, literal.position, quoted=True))
        for value in claims[claim_of(literal)]
    )
    return And(each) if expression.comparator == "!=" else Or(each)
