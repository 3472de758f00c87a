"""Claims in row rules: where they may occur, and the effect of a missing claim."""

from __future__ import annotations

import pytest

from access import unrestricted
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.row_filters import check_grant
from penstockd.policy.view import View
from penstockd.query import FilterError, compile_filter, evaluate_filter, parse_filter, parse_rule
from penstockd.resources import find_descriptors
from penstockd.store.sql import compile_for_copy, compile_statement
from penstockd.store.tables import Tables


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


def grant(dataset: str, row_filter: str, role: str = "r") -> Grant:
    return Grant(role, dataset, frozenset(Action), {}, {"": Mask.CLEAR}, row_filter)


def view(catalog: Catalog, dataset: str, *filters: str, **claims: str | list[str]) -> View:
    given = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in claims.items()}
    grants = [grant(dataset, text, f"r{i}") for i, text in enumerate(filters)]
    tables = Tables(catalog)
    return View(catalog[dataset], catalog, tables, grants, revision=1, mask_key=b"x", claims=given)


def sql(made: View) -> tuple[str, list[object]]:
    statement = compile_statement(made.select([made.dataset.key]))
    return statement.text.partition("WHERE ")[2], list(statement.arguments())


RULES = [
    "source = claims.source",
    "NOT source = claims.source",
    "source != claims.source",
    "-(source = claims.source)",
    'source = (claims.source OR "web")',
    "NOT (source = claims.source AND status = ACTIVE)",
    "status = ACTIVE OR source = claims.source",
    "tags:claims.source",
    "NOT tags:claims.source",
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("values", [[], [""], ["\x00"], ["\ud800"], ["x" * 2000], ["a"] * 101])
def test_without_a_usable_claim_a_rule_shows_nothing(
    catalog: Catalog, rule: str, values: list[str]
) -> None:
    assert parse_rule(rule).claims == ("source",)
    assert sql(view(catalog, "customers", rule, source=values)) == ("false", [])
    assert sql(view(catalog, "customers", rule)) == ("false", [])
    assert sql(view(catalog, "customers", rule, source="a"))[0] != "false"


def test_another_grant_shows_its_rows_all_the_same(catalog: Catalog) -> None:
    text, values = sql(view(catalog, "customers", "source = claims.source", "status = ACTIVE"))
    assert "source" not in text
    assert values == ["ACTIVE"]
    assert sql(view(catalog, "customers", "source = claims.source", "", ""))[0] == ""


def test_values_are_parameters_in_reads_and_in_copy(catalog: Catalog) -> None:
    value = "o'1\"; -- $1 %s :x {y} \\"
    made = view(catalog, "customers", "source = claims.source", source=["o2", value])
    text, values = sql(made)
    assert values == ["o2", value]
    assert value not in text and "o2" not in text
    copied, settings = compile_for_copy(made.select([made.dataset.key]))
    assert list(settings.values()) == ["o2", value]
    assert value not in copied and "o2" not in copied
    guard = made.guard
    assert guard.leaving is not None
    for statement in (guard.lock, guard.leaving):
        assert value in statement.arguments(keys=[])
        assert value not in statement.text


def test_no_value_of_a_claim_is_more_than_a_text(catalog: Catalog) -> None:
    """A star is not a wildcard, null is not NULL, and a claim's name is not a claim."""
    for value in ("*", "a*", "null", "claims.org", "ACTIVE OR true", '" OR source:*'):
        text, values = sql(view(catalog, "customers", "source = claims.x", x=value))
        assert values == [value]
        assert "LIKE" not in text and "IS NULL" not in text


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("status = claims.x", "NO_SUCH_STATUS"),
        ("credit_limit != claims.x", "much"),
        ("NOT create_time = claims.x", "yesterday"),
        ("customer_id = claims.x OR credit_limit = claims.x", "c1"),
    ],
)
def test_a_claim_that_is_no_value_of_its_field_shows_nothing(
    catalog: Catalog, rule: str, value: str
) -> None:
    check_grant(grant("customers", rule), catalog, Tables(catalog))
    assert sql(view(catalog, "customers", rule, x=value)) == ("false", [])


@pytest.mark.parametrize(
    "rule",
    [
        "claims.org = source",
        "claims.org = claims.org",
        "claims.org:*",
        "source > claims.org",
        "source <= claims.org",
        "source = claims.",
        "source = claims.Org",
        "source = claims.org.unit",
        "source = claims.org*",
        "source = claims.1",
        "billing_address = claims.org",
        "billing_address:claims.city",
        "tags = claims.org",
        "no_such_field = claims.org",
        'source = claims."org"',
    ],
)
def test_a_claim_in_a_wrong_place_is_refused(catalog: Catalog, rule: str) -> None:
    with pytest.raises(FilterError):
        check_grant(grant("customers", rule), catalog, Tables(catalog))


@pytest.mark.parametrize("rule", [*RULES, "status = claims.s"])
def test_a_claim_in_a_right_place_is_taken(catalog: Catalog, rule: str) -> None:
    check_grant(grant("customers", rule), catalog, Tables(catalog))


def test_a_claim_may_be_the_value_of_a_maps_key_and_not_the_key(catalog: Catalog) -> None:
    check_grant(grant("products", "attributes.colour = claims.c"), catalog, Tables(catalog))
    with pytest.raises(FilterError, match="cannot name"):
        check_grant(grant("products", "attributes:claims.c"), catalog, Tables(catalog))


def test_through_references(catalog: Catalog) -> None:
    rule = "customer.source = claims.source"
    check_grant(grant("orders", rule), catalog, Tables(catalog))
    text, values = sql(view(catalog, "orders", rule, source="web"))
    assert "EXISTS" in text
    assert values == ["web"]


def test_in_a_callers_filter_a_claim_is_a_text(catalog: Catalog) -> None:
    everything = unrestricted(catalog, "customers")
    statement = compile_statement(
        everything.select(
            [everything.dataset.key],
            compile_filter(parse_filter("source = claims.org"), everything),
        )
    )
    assert statement.arguments() == ["claims.org"]
    record = {"source": "claims.org"}
    assert evaluate_filter(parse_filter("source = claims.org"), everything, record)


def test_rules_without_claims_are_filters(catalog: Catalog) -> None:
    rule = parse_rule('source = "claims.org" AND status = ACTIVE')
    assert rule.claims == ()
    assert rule.bound({}) is rule.expression
