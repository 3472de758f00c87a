"""AIP-160 filters: ``parse_filter`` reads one, then two functions apply it.

``compile_filter`` makes it SQL, and ``evaluate_filter`` evaluates it in Python.

What is supported, beside AIP-160's grammar of AND (also implied), OR (which binds tighter), NOT,
``-`` and parentheses:

- ``= != < <= > >=`` with a field on the left and a literal on the right, typed by the field;
  enums and booleans know only ``=`` and ``!=``; strings compare by their bytes.
- ``name = (A OR B)``: the comparison with each value of a list, in which times are quoted.
- ``name = "Foo*"``, ``"*foo"``, ``"*foo*"``: wildcards at the ends of a string; ``\\*`` is a star.
- ``field:*`` presence; ``tags:"vip"`` and ``lines.product_id:"p1"`` any element;
  ``attributes:color`` a map's key, ``attributes.color = "red"`` its value; so a Struct's members,
  nested ones too (see ``members``).
- Strings in either quote, with the escapes ``\\\\ \\" \\' \\* \\n \\r \\t \\uXXXX``.

Refused, with the reason: functions, bare values, ``null``, comparisons of bytes. ``resolve`` says
what comparisons mean for fields that are not set.
"""

from penstockd.query.plain import Matcher, evaluate_filter, make_matcher, named_fields
from penstockd.query.sql import compile_filter
from penstockd.query.syntax import (
    And,
    Comparison,
    Expression,
    Literal,
    Not,
    Or,
    make_canonical,
    parse_filter,
)

__all__ = [
    "And",
    "Comparison",
    "Expression",
    "Literal",
    "Matcher",
    "Not",
    "Or",
    "compile_filter",
    "evaluate_filter",
    "make_canonical",
    "make_matcher",
    "named_fields",
    "parse_filter",
]
