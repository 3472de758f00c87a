"""A caller's query of a dataset: AIP-160 filters, orders, field selections and page tokens.

Every name is looked up in ``Names``, which contains what the caller may see and nothing else.
"""

from penstockd.query.errors import (
    FieldUnknown,
    FilterError,
    OrderError,
    PageTokenError,
    QueryError,
    SelectionError,
)
from penstockd.query.fields import parse_fields, select_fields
from penstockd.query.filter import (
    And,
    Expression,
    Not,
    Or,
    compile_filter,
    evaluate_filter,
    make_canonical,
    make_matcher,
    named_fields,
    parse_filter,
)
from penstockd.query.names import Names, Wrap
from penstockd.query.order import OrderBy
from penstockd.query.page import PageTokens, page_size, query_digest
from penstockd.query.rules import Rule, parse_rule

__all__ = [
    "And",
    "Expression",
    "FieldUnknown",
    "FilterError",
    "Names",
    "Not",
    "Or",
    "OrderBy",
    "OrderError",
    "PageTokenError",
    "PageTokens",
    "QueryError",
    "Rule",
    "SelectionError",
    "Wrap",
    "compile_filter",
    "evaluate_filter",
    "make_canonical",
    "make_matcher",
    "named_fields",
    "page_size",
    "parse_fields",
    "parse_filter",
    "parse_rule",
    "query_digest",
    "select_fields",
]
