"""What several grants together show of a field, and the sentence that explains it."""

from __future__ import annotations

from penstockd.catalog import Catalog, FieldClass
from penstockd.policy.decision import Combination, decide_field
from penstockd.policy.explain import explain_policy
from penstockd.policy.model import Action, Grant, Mask, MaskRule, Principal, Role

from .conftest import MakePolicy

READ = frozenset({Action.READ})
CLEAR = {FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.CLEAR}


def grant(role: str, rows: str = "", **masks: str) -> Grant:
    fields = {path.replace("__", "."): Mask(mask) for path, mask in masks.items()}
    return Grant(role, "customers", READ, CLEAR, fields, rows)


def test_the_rule_that_decides_is_the_nearest(catalog: Catalog) -> None:
    fields = catalog["customers"].by_path
    given = grant("a", email="partial", billing_address="hide", billing_address__city="clear")
    said = {path: given.decide(fields[path]) for path in fields}
    assert said["customer_id"].rule is MaskRule.KEY
    assert (said["email"].rule, said["email"].mask) == (MaskRule.FIELD, Mask.PARTIAL)
    assert said["billing_address.city"].rule is MaskRule.FIELD
    street = said["billing_address.line1"]
    assert (street.rule, street.mask, street.names) == (
        MaskRule.MESSAGE,
        Mask.HIDE,
        "billing_address",
    )
    assert (said["name"].rule, said["name"].names) == (MaskRule.CLASS, "PUBLIC")
    assert (said["tax_id"].rule, said["tax_id"].mask) == (MaskRule.DEFAULT, Mask.HIDE)


def test_the_same_rows_show_the_most_generous_and_others_the_strictest(catalog: Catalog) -> None:
    email = catalog["customers"].by_path["email"]
    partial, clear = grant("a", email="partial"), grant("b", email="clear")
    narrow = grant("c", "status = ACTIVE", email="clear")
    generous = decide_field(email, [[partial, clear]])
    assert (generous.mask, generous.combination) == (Mask.CLEAR, Combination.GENEROUS)
    assert [g.role for g in generous.deciding] == ["b"]
    strict = decide_field(email, [[partial, narrow]])
    assert (strict.mask, strict.combination) == (Mask.PARTIAL, Combination.STRICT)
    assert [g.role for g in strict.deciding] == ["a"]


def test_two_actions_show_what_both_do(catalog: Catalog) -> None:
    email = catalog["customers"].by_path["email"]
    decision = decide_field(email, [[grant("a", email="clear")], [grant("b", email="null")]])
    assert decision.mask is Mask.NULL


def test_a_mask_that_does_not_fit_hides(catalog: Catalog) -> None:
    limit = catalog["customers"].by_path["credit_limit"]
    decision = decide_field(limit, [[grant("a", credit_limit="hash")]])
    assert (decision.mask, decision.combination) == (Mask.HIDE, Combination.UNFIT)
    assert [g.role for g in decision.deciding] == ["a"]


def test_nobody_decides_without_a_grant(catalog: Catalog) -> None:
    decision = decide_field(catalog["customers"].by_path["name"], [[]])
    assert (decision.mask, decision.combination) == (Mask.HIDE, Combination.NONE)
    assert decide_field(catalog["customers"].by_path["name"], []).mask is Mask.HIDE


def test_explanations_say_it(policy: MakePolicy, catalog: Catalog) -> None:
    roles = [
        Role("a", grants=(grant("a", email="partial"),)),
        Role("c", grants=(grant("c", "source = claims.source", email="clear", tax_id="hash"),)),
    ]
    given = policy(*roles)
    both = Principal("x", "", frozenset({"a", "c"}), {"source": ("erp",)})
    answer = explain_policy(given, both, catalog["customers"])
    reasons = {f.field.path: f.reason for f in answer.fields}
    assert reasons["email"] == (
        "role a shows it partial: field_masks names email; "
        "the strictest of roles a, c, which show different rows"
    )
    assert reasons["tax_id"].startswith("role a hides it: nothing names it or its class SENSITIVE")
    assert answer.row_reason == "all rows: role a has no row filter"
    assert [dict(r.claims) for r in answer.rows] == [{}, {"source": ("erp",)}]
    assert answer.actions[Action.READ] == ("a", "c")
    assert answer.actions[Action.DELETE] == ()
    nobody = explain_policy(given, Principal("y", "", frozenset()), catalog["customers"])
    assert {f.decision.mask for f in nobody.fields} == {Mask.HIDE}
    assert nobody.row_reason == "no rows: no grant allows reading customers"


def test_only_grants_that_allow_to_read_decide_what_is_read(
    policy: MakePolicy, catalog: Catalog
) -> None:
    writer = Grant(
        "w", "customers", frozenset({Action.UPDATE}), CLEAR, {"email": Mask.CLEAR}, "kind = PERSON"
    )
    given = policy(Role("a", grants=(grant("a", email="partial"),)), Role("w", grants=(writer,)))
    answer = explain_policy(given, Principal("x", "", frozenset({"a", "w"})), catalog["customers"])
    email = next(f for f in answer.fields if f.field.path == "email")
    assert email.decision.mask is Mask.PARTIAL
    assert [g.role for g in email.decision.deciding] == ["a"]
    assert email.writable
    assert [r.grant.role for r in answer.rows] == ["a"]
