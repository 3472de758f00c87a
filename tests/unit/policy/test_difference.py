"""Differences between policies as readable lines."""

from __future__ import annotations

from dataclasses import replace

from penstockd.catalog import FieldClass
from penstockd.policy.difference import find_differences
from penstockd.policy.history import PolicyDocument, rolled_back
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Role

GRANT = Grant(
    "bi",
    "customers",
    frozenset({Action.READ}),
    {FieldClass.PUBLIC: Mask.CLEAR},
    {"email": Mask.PARTIAL},
    "status = ACTIVE",
)
BI = Role("bi", "Reports", (GRANT,))
CRM = Consumer("crm", True, frozenset({"bi"}), {"org": ("o1",)}, "CRM")


def lines(before: Role | Consumer | None, after: Role | Consumer | None) -> list[str]:
    def document(found: Role | Consumer | None) -> PolicyDocument:
        if isinstance(found, Role):
            return PolicyDocument({found.role_id: found}, {})
        return PolicyDocument({}, {found.consumer_id: found} if found is not None else {})

    return [d.text for d in find_differences(document(before), document(after))]


def changed(**values: object) -> Role:
    return replace(BI, grants=(replace(GRANT, **values),))  # type: ignore[arg-type]  # any field


def test_what_changes_in_a_role() -> None:
    assert lines(BI, BI) == []
    assert lines(BI, changed(field_masks={"email": Mask.HIDE})) == [
        "role bi: customers.email partial -> hidden"
    ]
    assert lines(BI, changed(field_masks={})) == [
        "role bi: customers.email partial -> as its class"
    ]
    assert lines(BI, changed(class_masks={FieldClass.PII: Mask.NULL, **GRANT.class_masks})) == [
        "role bi: customers class PII hidden -> null"
    ]
    assert lines(BI, changed(row_filter="")) == ["role bi: customers rows status = ACTIVE -> all"]
    assert lines(BI, changed(actions=frozenset({Action.READ, Action.DELETE}))) == [
        "role bi: customers actions read -> delete, read"
    ]
    assert lines(BI, replace(BI, permissions=frozenset({Permission.ACCESS_READ}))) == [
        "role bi: permissions added (access.read)"
    ]
    assert lines(BI, replace(BI, grants=())) == [
        "role bi: customers actions removed (read)",
        "role bi: customers class PUBLIC clear -> hidden",
        "role bi: customers.email partial -> as its class",
        "role bi: customers rows removed (status = ACTIVE)",
    ]
    assert lines(None, BI)[0] == "role bi: added"
    assert lines(BI, None)[0] == "role bi: removed"


def test_what_changes_in_a_consumer() -> None:
    assert lines(CRM, replace(CRM, active=False)) == ["consumer crm: active -> inactive"]
    assert lines(CRM, replace(CRM, roles=frozenset({"bi", "x"}))) == [
        "consumer crm: roles bi -> bi, x"
    ]
    assert lines(CRM, replace(CRM, claims={})) == ["consumer crm: claims.org removed (o1)"]
    assert lines(CRM, replace(CRM, claims={"org": ("o1", "o2")})) == [
        "consumer crm: claims.org o1 -> o1, o2"
    ]


def test_a_rollback_gives_roles_and_claims_back_and_wakes_nobody() -> None:
    then = PolicyDocument(
        {"bi": BI},
        {"crm": CRM, "gone": Consumer("gone", True, frozenset({"bi"}), {}, "Gone")},
    )
    now = PolicyDocument(
        {"bi": changed(row_filter=""), "new": Role("new")},
        {
            "crm": replace(CRM, active=False, roles=frozenset({"new"}), claims={}, title="C"),
            "late": Consumer("late", True, frozenset({"new"}), {"a": ("b",)}, "Late"),
        },
    )
    wanted = rolled_back(now, then)
    assert wanted.roles == {"bi": BI}
    assert wanted.consumers == {
        "crm": replace(CRM, active=False, title="C"),
        "gone": then.consumers["gone"],
        "late": Consumer("late", True, frozenset(), {"a": ("b",)}, "Late"),
    }
