"""Commands of access: how they use their organs, and what they record in the audit entry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from fake_organs import CommitFailed, HubLike, Row
from penstockd.access.changes import ChangeTerms
from penstockd.access.subject import Subject
from penstockd.auth.issuers import Issuer
from penstockd.commands.access.compare_revisions import compare_revisions
from penstockd.commands.access.create_consumer import create_consumer
from penstockd.commands.access.create_issuer import create_issuer
from penstockd.commands.access.create_role import create_role
from penstockd.commands.access.delete_consumer import delete_consumer
from penstockd.commands.access.delete_role import delete_role
from penstockd.commands.access.explain_access import explain_access
from penstockd.commands.access.get_consumer import get_consumer
from penstockd.commands.access.get_issuer import get_issuer
from penstockd.commands.access.get_revision import get_revision
from penstockd.commands.access.get_role import get_role
from penstockd.commands.access.issue_credential import issue_credential
from penstockd.commands.access.list_consumers import list_consumers
from penstockd.commands.access.list_credentials import list_credentials
from penstockd.commands.access.list_issuers import list_issuers
from penstockd.commands.access.list_revisions import list_revisions
from penstockd.commands.access.list_roles import list_roles
from penstockd.commands.access.list_signing_keys import list_signing_keys
from penstockd.commands.access.preview_records import preview_records
from penstockd.commands.access.rehearse_access import rehearse_access
from penstockd.commands.access.remove_issuer import remove_issuer
from penstockd.commands.access.revoke_credential import revoke_credential
from penstockd.commands.access.roll_back import roll_back
from penstockd.commands.access.rotate_credential import rotate_credential
from penstockd.commands.access.rotate_signing_keys import rotate_signing_keys
from penstockd.commands.access.update_consumer import update_consumer
from penstockd.commands.access.update_issuer import update_issuer
from penstockd.commands.access.update_role import update_role
from penstockd.errors import (
    CredentialEnded,
    PermissionDenied,
    PolicyChanged,
    RecordExists,
    RecordNotFound,
    RoleInUse,
    ValueInvalid,
)
from penstockd.policy.checks import RoleDraft
from penstockd.policy.model import Consumer
from penstockd.policy.pages import Query
from penstockd.policy.plan_checks import LimitsDraft
from penstockd.query import FieldUnknown, PageTokenError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAIN = ChangeTerms("because")
NO_LIMITS = LimitsDraft()
CONSUMER = {"title": "", "active": True, "claims": {}, "roles": ["reader"]}
ROLE = {"description": "Reads", "permissions": [], "grants": {}}
POLICY = {"roles": {"reader": ROLE}, "consumers": {"crm": CONSUMER}}


def consumer_row(name: str = "crm", **changes: Any) -> tuple[Any, ...]:
    return name, orjson.dumps(CONSUMER | changes), NOW


def role_row(name: str = "reader", **changes: Any) -> tuple[Any, ...]:
    return name, orjson.dumps(ROLE | changes)


def credential_row(**changes: Any) -> tuple[Any, ...]:
    known = {"id": "k9", "consumer": "crm", "kind": "api_key", "made": NOW, "end": None}
    return (*(known | changes).values(), False, None)


def issuer_row(name: str = "entra", url: str = "https://entra.example") -> Row:
    return Row.of(
        issuer_id=name, issuer=url, jwks_uri=f"{url}/keys", audiences=["hub"],
        algorithms=["RS256"], token_types=["at+jwt"], max_age_seconds=3600, consumer_id="crm",
        consumer_claim="", consumers="{}", consumers_by_claim=False, claims="[]", scope_claim="",
        active=True, title="",
    )  # fmt: skip


@pytest.fixture
def hub(hub: HubLike) -> HubLike:
    """The policy at revision 7, with a consumer, its role, a credential and an issuer."""
    hub.give(
        {
            "AS d WHERE d.consumer_id = c.consumer_id": [(1, 1)],
            "hub.policy_now()": [(orjson.dumps(POLICY),)],
            "JOIN hub.policy_document": [(orjson.dumps(POLICY),)],
            "FROM hub.policy_revision": [(6, NOW, "caller", "", "why", "r0")],
            "SELECT revision FROM hub.policy": [(7,)],
            "FROM hub.consumer AS c": lambda *a: [consumer_row()] if a[0] in ("crm", "") else [],
            "FROM hub.role AS r": lambda *a: [role_row()] if a[0] in ("reader", "") else [],
            "SELECT role_id FROM hub.role": [("reader",)],
            "SELECT plan_id FROM hub.plan": [("gold",)],
            "FROM hub.credential LEFT JOIN": lambda *a: (
                [credential_row(id=c)] if (c := a[1]) != "other" else []
            ),
            "FROM hub.issuer": lambda name, *_: [issuer_row()] if name in (None, "entra") else [],
        }
    )
    return hub


async def test_list_consumers(hub: HubLike) -> None:
    found, token, revision = await list_consumers(hub, call := hub.call(), 0, "")
    assert [c.consumer.consumer_id for c in found] == ["crm"]
    assert (token, revision, call.entry.row_count) == ("", 7, 1)
    assert hub.asked("FROM hub.consumer AS c") == [("", 101)]


async def test_list_consumers_goes_on_behind_the_last_page(hub: HubLike) -> None:
    hub.give({"FROM hub.consumer AS c": [consumer_row("a"), consumer_row("b")]})
    found, token, _ = await list_consumers(hub, hub.call(), 1, "")
    assert [c.consumer.consumer_id for c in found] == ["a"]
    await list_consumers(hub, hub.call(), 1, token)
    assert hub.asked("FROM hub.consumer AS c")[1] == ("a", 2)
    with pytest.raises(PageTokenError):  # of another list
        await list_roles(hub, hub.call(), 1, token)


async def test_get_consumer(hub: HubLike) -> None:
    found, revision = await get_consumer(hub, call := hub.call(), "crm")
    assert (found.consumer.roles, revision) == (frozenset({"reader"}), 7)
    assert (call.entry.record_key, call.entry.row_count) == ("consumers/crm", 1)
    with pytest.raises(RecordNotFound):
        await get_consumer(hub, hub.call(), "nobody")


async def test_create_consumer(hub: HubLike) -> None:
    consumer = Consumer("erp", True, frozenset({"reader"}))
    known: list[Any] = []
    hub.give({"FROM hub.consumer AS c": lambda *_: known, "INSERT INTO hub.consumer (": []})
    with pytest.raises(RecordNotFound):  # the fake does not keep it
        await create_consumer(hub, hub.call(), consumer, NO_LIMITS, PLAIN)
    assert hub.asked("INSERT INTO hub.consumer (")[0][0] == "erp"
    known.append(consumer_row("erp"))
    with pytest.raises(RecordExists):
        await create_consumer(hub, hub.call(), consumer, NO_LIMITS, PLAIN)
    assert hub.database.committed == 0 and hub.policy.refreshes == 0


async def test_update_consumer(hub: HubLike) -> None:
    consumer = Consumer("crm", True, frozenset(), title="Customers")
    _, revision = await update_consumer(
        hub, call := hub.call(), consumer, NO_LIMITS, ["title"], PLAIN
    )
    # The roles are not in the mask, and stay.
    assert hub.asked("INSERT INTO hub.consumer (") == [("crm", "Customers", True, "{}", None, "{}")]
    assert hub.asked("INSERT INTO hub.consumer_role") == [(("crm", "reader"),)]
    assert (revision, hub.database.committed, hub.policy.refreshes) == (7, 1, 1)
    assert call.recorded and call.entry.row_count == 1
    assert "Customers" in (call.entry.query or "") and "because" in (call.entry.query or "")
    with pytest.raises(FieldUnknown):
        await update_consumer(hub, hub.call(), consumer, NO_LIMITS, ["consumer_id"], PLAIN)


async def test_delete_consumer(hub: HubLike) -> None:
    await delete_consumer(hub, call := hub.call(), "crm", PLAIN)
    assert hub.asked("DELETE FROM hub.consumer WHERE") == [("crm",)]
    assert call.recorded and call.entry.record_key == "consumers/crm"
    with pytest.raises(RecordNotFound):
        await delete_consumer(hub, hub.call(), "nobody", PLAIN)


async def test_a_change_that_is_only_validated_leaves_nothing(hub: HubLike) -> None:
    await delete_consumer(hub, call := hub.call(), "crm", ChangeTerms(validate_only=True))
    assert (hub.database.transactions, hub.policy.refreshes) == (["rolled back"], 0)
    assert not call.recorded


async def test_a_change_of_another_revision_is_refused(hub: HubLike) -> None:
    with pytest.raises(PolicyChanged):
        await delete_consumer(hub, hub.call(), "crm", ChangeTerms(policy_revision=5))
    assert hub.asked("DELETE FROM hub.consumer") == []


async def test_a_change_whose_commit_fails_is_not_recorded(hub: HubLike) -> None:
    hub.database.commits_fail = True
    call = hub.call()
    with pytest.raises(CommitFailed):
        await delete_consumer(hub, call, "crm", PLAIN)
    assert not call.recorded and hub.policy.refreshes == 0


async def test_list_roles(hub: HubLike) -> None:
    found, token, revision = await list_roles(hub, hub.call(), 0, "")
    assert ([r.role_id for r in found], token, revision) == (["reader"], "", 7)


async def test_get_role(hub: HubLike) -> None:
    role, _ = await get_role(hub, hub.call(), "reader")
    assert role.description == "Reads"
    with pytest.raises(RecordNotFound):
        await get_role(hub, hub.call(), "writer")


async def test_create_role(hub: HubLike) -> None:
    with pytest.raises(RecordExists):
        await create_role(hub, hub.call(), RoleDraft("reader"), PLAIN)
    with pytest.raises(ValueInvalid):
        await create_role(hub, hub.call(), RoleDraft("No role"), PLAIN)
    hub.give({"FROM hub.role AS r": lambda *_: hub.asked("INTO hub.role") and [role_row("new")]})
    made, _ = await create_role(hub, hub.call(), RoleDraft("new", "New"), PLAIN)
    assert made.role_id == "new" and hub.database.committed == 1


async def test_update_role(hub: HubLike) -> None:
    draft = RoleDraft("reader", "Reads all", permissions=["access.read"])
    await update_role(hub, hub.call(), draft, ["description"], PLAIN)
    assert hub.asked("INSERT INTO hub.role") == [("reader", "Reads all", [])]
    with pytest.raises(FieldUnknown):
        await update_role(hub, hub.call(), draft, ["role_id"], PLAIN)


async def test_update_role_gives_no_more_than_the_scopes(hub: HubLike) -> None:
    given = {**POLICY, "roles": {"reader": ROLE | {"permissions": ["audit.read"]}}}
    policies = iter([POLICY, given])
    hub.give({"hub.policy_now()": lambda: [(orjson.dumps(next(policies)),)]})
    draft = RoleDraft("reader", permissions=["audit.read"])
    call = hub.call(scopes=frozenset({"access.write"}))
    with pytest.raises(PermissionDenied, match=r"audit\.read"):
        await update_role(hub, call, draft, ["permissions"], PLAIN)
    assert hub.database.committed == 0


async def test_delete_role(hub: HubLike) -> None:
    hub.give({"FROM hub.consumer_role WHERE": [("crm",), ("erp",)]})
    with pytest.raises(RoleInUse, match="crm, erp"):
        await delete_role(hub, hub.call(), "reader", PLAIN)
    hub.give({"FROM hub.consumer_role WHERE": []})
    await delete_role(hub, hub.call(), "reader", PLAIN)
    assert hub.asked("DELETE FROM hub.role") == [(["reader"],)]


async def test_list_credentials(hub: HubLike) -> None:
    hub.give({"FROM hub.credential LEFT JOIN": [credential_row(), credential_row(id="k8")]})
    found, token = await list_credentials(hub, hub.call(), "crm", 1, "")
    assert [c.credential_id for c in found] == ["k9"]
    await list_credentials(hub, hub.call(), "crm", 1, token)
    assert hub.asked("FROM hub.credential LEFT JOIN")[1] == ("crm", NOW, "k9", 2)
    with pytest.raises(PageTokenError):  # of another consumer
        await list_credentials(hub, hub.call(), "erp", 1, token)


async def test_issue_credential(hub: HubLike) -> None:
    issued, secret = await issue_credential(hub, hub.call(), "crm", "api_key", None, PLAIN)
    assert (issued.credential_id, secret) == ("new1", "s3cret")
    terms = ChangeTerms(validate_only=True)
    assert (await issue_credential(hub, hub.call(), "crm", "api_key", None, terms))[1] == ""
    for kind, end in (("password", None), ("api_key", NOW - timedelta(days=9999))):
        with pytest.raises(ValueInvalid):
            await issue_credential(hub, hub.call(), "crm", kind, end, PLAIN)


async def test_issue_credential_of_a_consumer_beyond_the_scopes(hub: HubLike) -> None:
    able = {**POLICY, "roles": {"reader": ROLE | {"permissions": ["audit.read"]}}}
    hub.give({"hub.policy_now()": [(orjson.dumps(able),)]})
    call = hub.call(scopes=frozenset({"access.write"}))
    with pytest.raises(PermissionDenied):
        await issue_credential(hub, call, "crm", "api_key", None, PLAIN)
    assert hub.credentials.issued == []


async def test_rotate_credential(hub: HubLike) -> None:
    day = timedelta(days=1)
    await rotate_credential(hub, call := hub.call(), "crm", "k9", day, None, PLAIN)
    assert hub.credentials.issued == [("crm", "api_key")]
    assert "rotated to" in (call.entry.query or "")
    assert len(hub.asked("SET expire_time = least")) == 1
    await rotate_credential(hub, hub.call(), "crm", "k9", timedelta(), None, PLAIN)
    assert hub.asked("SET revoked = true") == [("k9",)]
    with pytest.raises(ValueInvalid):
        await rotate_credential(hub, hub.call(), "crm", "k9", 31 * day, None, PLAIN)
    hub.give({"FROM hub.credential LEFT JOIN": [credential_row(end=NOW - 9999 * day)]})
    with pytest.raises(CredentialEnded):
        await rotate_credential(hub, hub.call(), "crm", "k9", day, None, PLAIN)


async def test_revoke_credential(hub: HubLike) -> None:
    await revoke_credential(hub, hub.call(), "crm", "k9", PLAIN)
    assert hub.asked("SET revoked = true") == [("k9",)]
    with pytest.raises(RecordNotFound):
        await revoke_credential(hub, hub.call(), "crm", "other", PLAIN)


async def test_list_revisions(hub: HubLike) -> None:
    found, token = await list_revisions(hub, hub.call(), 0, "")
    assert ([r.comment for r in found], token) == (["why"], "")


async def test_get_revision(hub: HubLike) -> None:
    revision, document = await get_revision(hub, call := hub.call(), 6)
    assert (revision.revision, set(document.roles)) == (6, {"reader"})
    assert call.entry.record_key == "revisions/6"


async def test_compare_revisions(hub: HubLike) -> None:
    later = {**POLICY, "consumers": {"crm": CONSUMER | {"active": False}}}
    documents = iter([POLICY, later])
    hub.give({"JOIN hub.policy_document": lambda *_: [(orjson.dumps(next(documents)),)]})
    found = await compare_revisions(hub, hub.call(), 5, 6)
    assert ["crm" in d.text for d in found] == [True]


async def test_roll_back(hub: HubLike) -> None:
    earlier = {"roles": {}, "consumers": {"crm": CONSUMER | {"roles": []}}}
    hub.give({"JOIN hub.policy_document": [(orjson.dumps(earlier),)]})
    made, document, _ = await roll_back(hub, hub.call(), 6, PLAIN)
    assert made is not None and document.consumers["crm"].roles == frozenset()
    assert hub.asked("DELETE FROM hub.role WHERE") == [(["reader"],)]
    only = ChangeTerms(validate_only=True)
    assert (await roll_back(hub, hub.call(), 6, only))[0] is None


async def test_explain_access(hub: HubLike) -> None:
    answer = await explain_access(
        hub, hub.call(), "customers", Subject(roles=["administrator"]), "c1"
    )
    assert answer.explanation.view is None and answer.record is not None
    assert not answer.record.visible and hub.asked("data.customers") == []
    with pytest.raises(ValueInvalid):
        await explain_access(hub, hub.call(), "nothing", Subject(roles=["administrator"]), "")
    with pytest.raises(RecordNotFound):
        await explain_access(hub, hub.call(), "customers", Subject(roles=["nobody's"]), "")
    narrow = hub.call(scopes=frozenset({"access.read", "access.write"}))
    with pytest.raises(PermissionDenied):
        await explain_access(hub, narrow, "customers", Subject(roles=["administrator"]), "c1")


async def test_preview_records_shows_no_more_than_the_subject_may_read(hub: HubLike) -> None:
    with pytest.raises(PermissionDenied):
        await preview_records(
            hub, hub.call(), "customers", Subject(roles=["administrator"]), Query()
        )
    assert hub.asked("data.customers") == []


async def test_rehearse_access(hub: HubLike) -> None:
    outcome = await rehearse_access(hub, call := hub.call(), RoleDraft("reader"), 0, 0)
    assert (outcome.revision, outcome.effects, call.entry.row_count) == (7, [], 0)
    assert [d.text for d in outcome.differences] != []
    for draft, revision, days in ((None, 0, 1), (RoleDraft("reader"), 6, 1), (None, 6, 91)):
        with pytest.raises(ValueInvalid):
            await rehearse_access(hub, hub.call(), draft, revision, days)


async def test_list_issuers(hub: HubLike) -> None:
    found, token = await list_issuers(hub, call := hub.call(), 0, "")
    assert token == "" and [i.issuer_id for i in found] == ["entra"]
    assert call.entry.row_count == 1


async def test_get_issuer(hub: HubLike) -> None:
    assert (await get_issuer(hub, hub.call(), "entra")).issuer == "https://entra.example"
    with pytest.raises(RecordNotFound):
        await get_issuer(hub, hub.call(), "okta")


def an_issuer(name: str = "okta", url: str = "https://okta.example") -> Issuer:
    return Issuer(
        name, url, f"{url}/keys", ("hub",), ("RS256",), ("at+jwt",), 3600, consumer_id="caller"
    )


async def test_create_issuer(hub: HubLike) -> None:
    for known in (an_issuer("entra"), an_issuer(url="https://entra.example")):
        with pytest.raises(RecordExists):
            await create_issuer(hub, hub.call(), known)
    made = await create_issuer(hub, call := hub.call(), an_issuer())
    assert made.issuer_id == "okta" and call.recorded and hub.policy.refreshes == 1
    assert len(hub.asked("LOCK TABLE hub.issuer")) == 3


async def test_update_issuer(hub: HubLike) -> None:
    await update_issuer(hub, call := hub.call(), "entra", lambda _: an_issuer("entra"))
    assert hub.asked("INSERT INTO hub.issuer")[0][1] == "https://okta.example"
    assert call.recorded and call.entry.record_key == "entra"
    with pytest.raises(RecordNotFound):
        await update_issuer(hub, hub.call(), "okta", lambda i: i)


async def test_remove_issuer(hub: HubLike) -> None:
    await remove_issuer(hub, call := hub.call(), "entra")
    assert hub.asked("DELETE FROM hub.issuer") == [("entra",)] and call.recorded
    with pytest.raises(RecordNotFound):
        await remove_issuer(hub, hub.call(), "okta")


def test_list_signing_keys(hub: HubLike) -> None:
    page, token = list_signing_keys(hub, call := hub.call(), 0, "")
    assert page == hub.tokens.keys.newest()
    assert (token, call.entry.row_count) == ("", 2)
    first, token = list_signing_keys(hub, hub.call(), 1, "")
    second, end = list_signing_keys(hub, hub.call(), 1, token)
    assert ([*first, *second], end) == (page, "")


async def test_rotate_signing_keys(hub: HubLike) -> None:
    await rotate_signing_keys(hub, call := hub.call(), now=True)
    assert (call.entry.record_key, call.recorded, hub.policy.refreshes) == ("k3", True, 1)
    hub.database.commits_fail = True
    with pytest.raises(CommitFailed):
        await rotate_signing_keys(hub, call := hub.call(), now=True)
    assert not call.recorded
