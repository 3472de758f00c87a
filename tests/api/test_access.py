"""Administration of access over REST: consumers, credentials, roles, history, explanations."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness import Reply, RunningHub, eventually, in_force
from penstockd.auth.credentials import Credentials
from penstockd.auth.uses import CredentialUses
from penstockd.keyring import FixedKey
from penstockd.store.database import Database

READ_CLEAR = {
    "dataset": "customers",
    "actions": ["read"],
    "classMasks": {"PUBLIC": "clear", "INTERNAL": "clear", "PII": "clear"},
}


def post(hub: RunningHub, path: str, body: Any, consumer: str = "admin", **query: Any) -> Reply:
    return hub.request("POST", f"/v1/access{path}", consumer=consumer, json_body=body, query=query)


def patch(hub: RunningHub, path: str, body: Any, **query: Any) -> Reply:
    return hub.request("PATCH", f"/v1/access{path}", consumer="admin", json_body=body, query=query)


def delete(hub: RunningHub, path: str, **query: Any) -> Reply:
    return hub.request("DELETE", f"/v1/access{path}", consumer="admin", query=query)


EXPIRE = "UPDATE hub.credential SET expire_time = $2 WHERE credential_id = $1"
EXPIRE_TIME = "SELECT expire_time FROM hub.credential WHERE credential_id = $1"


def done(reply: Reply) -> Any:
    assert reply.status == 200, reply.text
    return reply.json()


def revision(hub: RunningHub) -> int:
    return int(hub.sql("SELECT revision FROM hub.policy")[0][0])


class Integration:
    """A role, a consumer that has it, and an API key; removed at the end."""

    def __init__(self, hub: RunningHub, *grants: dict[str, Any], **consumer: Any) -> None:
        self.hub, self.name = hub, f"t-{uuid.uuid4().hex[:8]}"
        done(post(hub, "/roles", {"roleId": self.name, "grants": grants}))
        body = {"consumerId": self.name, "roles": [self.name], **consumer}
        done(post(hub, "/consumers", body))
        self.key, self.credential = self.issue("API_KEY")

    def issue(self, kind: str, **more: Any) -> tuple[str, str]:
        issued = done(post(self.hub, f"/consumers/{self.name}/credentials", {"kind": kind, **more}))
        return issued["secret"], issued["credential"]["credentialId"]

    def get(self, path: str, key: str = "", **query: Any) -> Reply:
        headers = {"x-api-key": key or self.key}
        return self.hub.request("GET", path, headers=headers, query=query)

    def update_role(self, *grants: dict[str, Any], **query: Any) -> Any:
        query.setdefault("update_mask", "grants")
        return done(patch(self.hub, f"/roles/{self.name}", {"grants": grants}, **query))

    def remove(self) -> None:
        assert delete(self.hub, f"/consumers/{self.name}").status in (200, 404)
        assert delete(self.hub, f"/roles/{self.name}").status in (200, 404)


@pytest.fixture
def integration(hub: RunningHub) -> Iterator[Integration]:
    made = Integration(hub, READ_CLEAR)
    in_force(lambda: made.get("/v1/customers", page_size=1).status == 200)
    yield made
    made.remove()


def test_a_consumer_from_its_making_to_its_end(hub: RunningHub) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    body = {"consumerId": name, "title": "ERP", "claims": {"org": {"values": ["o1", "o2"]}}}
    before = revision(hub)
    made = done(post(hub, "/consumers", body, comment="for the ERP"))
    assert made["active"] is True and made["claims"] == body["claims"]
    assert int(made["policyRevision"]) == before + 1 == revision(hub)
    assert done(hub.get(f"/v1/access/consumers/{name}")) == made
    assert post(hub, "/consumers", body).reason == "RECORD_EXISTS"
    changed = done(patch(hub, f"/consumers/{name}", {"title": "SAP"}))
    assert changed["title"] == "SAP" and changed["claims"] == body["claims"]
    cleared = done(patch(hub, f"/consumers/{name}", {}, update_mask="claims,active"))
    assert "claims" not in cleared and cleared["title"] == "SAP"
    off = done(patch(hub, f"/consumers/{name}", {"active": False}))
    assert off["active"] is False
    unknown = patch(hub, f"/consumers/{name}", {"title": "x"}, update_mask="digest")
    assert unknown.reason == "FIELD_UNKNOWN"
    wrong = patch(hub, f"/consumers/{name}", {"roles": ["nobody"]})
    assert wrong.violations() == {"roles": "there is no role 'nobody'"}
    assert delete(hub, f"/consumers/{name}").status == 200
    assert hub.get(f"/v1/access/consumers/{name}").reason == "RECORD_NOT_FOUND"
    assert delete(hub, f"/consumers/{name}").status == 404
    assert revision(hub) == before + 5, "one change, one revision; a refusal makes none"


def test_lists_page_by_page(hub: RunningHub) -> None:
    names = [f"t-page-{i}" for i in range(3)]
    for name in names:
        done(post(hub, "/consumers", {"consumerId": name}))
        done(post(hub, "/roles", {"roleId": name}))
    try:
        for what, key in (("consumers", "consumerId"), ("roles", "roleId")):
            found, token = [], ""
            while True:
                page = done(hub.get(f"/v1/access/{what}", page_size=2, page_token=token))
                assert len(page[what]) <= 2
                found += [entry[key] for entry in page[what]]
                token = page.get("nextPageToken", "")
                if not token:
                    break
                other = "roles" if what == "consumers" else "consumers"
                foreign = hub.get(f"/v1/access/{other}", page_token=token)
                assert foreign.reason == "PAGE_TOKEN_INVALID"
            assert found == sorted(found) and {"admin", "bi", "crm", *names} <= set(found)
        assert hub.get("/v1/access/roles", page_size=-1).reason == "VALUE_INVALID"
        revisions, token = [], ""
        for _ in range(3):
            page = done(hub.get("/v1/access/revisions", page_size=2, page_token=token))
            revisions += [int(r["revision"]) for r in page["revisions"]]
            token = page["nextPageToken"]
        assert revisions == list(range(revision(hub), revision(hub) - 6, -1))
    finally:
        for name in names:
            delete(hub, f"/consumers/{name}")
            delete(hub, f"/roles/{name}")


def test_a_change_for_another_revision_is_refused(hub: RunningHub) -> None:
    now = revision(hub)
    body = {"roleId": "t-late", "description": "x"}
    late = post(hub, "/roles", body, policy_revision=now - 1)
    assert (late.status, late.reason) == (409, "POLICY_CHANGED")
    assert str(now) in late.json()["message"]
    assert revision(hub) == now and hub.get("/v1/access/roles/t-late").status == 404
    made = done(post(hub, "/roles", body, policy_revision=now))
    gone = delete(hub, "/roles/t-late", policy_revision=made["policyRevision"])
    assert gone.status == 200


def test_validate_only_checks_and_changes_nothing(
    hub: RunningHub, integration: Integration
) -> None:
    now, path = revision(hub), f"/consumers/{integration.name}"
    would = done(post(hub, "/roles", {"roleId": "t-dry"}, validate_only=True))
    assert would["roleId"] == "t-dry"
    assert hub.get("/v1/access/roles/t-dry").status == 404
    issued = done(post(hub, f"{path}/credentials", {"kind": "API_KEY", "validateOnly": True}))
    assert "secret" not in issued
    assert delete(hub, path, validate_only=True).status == 200
    refused = post(hub, "/consumers", {"consumerId": "t-dry", "roles": ["no"]}, validate_only=True)
    assert refused.status == 400
    rolled = done(post(hub, f"/revisions/{now - 1}:rollback", {"validateOnly": True}))
    assert rolled["roles"]
    assert revision(hub) == now
    assert integration.get("/v1/customers", page_size=1).status == 200


def test_credentials_are_issued_rotated_and_revoked(
    hub: RunningHub, integration: Integration
) -> None:
    path = f"/consumers/{integration.name}/credentials"
    overlap = timedelta(hours=1)
    began = datetime.now(UTC)
    rotated = done(
        post(hub, f"{path}/{integration.credential}:rotate", {"overlap": f"{overlap.seconds}s"})
    )
    new = rotated["secret"]
    assert new.startswith(rotated["credential"]["prefix"]) and new != integration.key

    def works(key: str) -> bool:
        return integration.get("/v1/customers", key, page_size=1).status == 200

    in_force(lambda: works(new))
    assert works(integration.key), "the old one works on for the overlap"
    (end,) = hub.sql(EXPIRE_TIME, integration.credential)[0]
    assert began + overlap <= end <= datetime.now(UTC) + overlap
    hub.sql(EXPIRE, integration.credential, datetime.now(UTC))
    in_force(lambda: not works(integration.key))
    listed = done(hub.get(f"/v1/access{path}"))["credentials"]
    assert [c["credentialId"] for c in listed] == [
        rotated["credential"]["credentialId"],
        integration.credential,
    ]
    assert "expireTime" in listed[1] and "expireTime" not in listed[0]
    again = post(hub, f"{path}/{integration.credential}:rotate", {})
    assert (again.status, again.reason) == (400, "CREDENTIAL_ENDED")
    revoked = done(post(hub, f"{path}/{listed[0]['credentialId']}:revoke", {}))
    assert revoked["revoked"] is True
    in_force(lambda: not works(new))
    assert integration.get("/v1/customers", new).status == 401


def test_credentials_end_when_they_say(hub: RunningHub, integration: Integration) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    key, credential = integration.issue("API_KEY", expireTime=later)

    def refused() -> bool:
        return integration.get("/v1/customers", key, page_size=1).status == 401

    in_force(lambda: not refused())
    soon = datetime.now(UTC) + timedelta(seconds=2)
    hub.sql(EXPIRE, credential, soon)
    eventually(refused)
    assert datetime.now(UTC) >= soon, "not before its end"
    in_force(refused)
    path = f"/consumers/{integration.name}/credentials"
    past = post(hub, path, {"kind": "API_KEY", "expireTime": "2020-01-01T00:00:00Z"})
    assert past.violations() == {"expireTime": "is past"}
    assert post(hub, path, {}).violations().keys() == {"kind"}
    long = post(hub, f"{path}/{integration.credential}:rotate", {"overlap": "2592001s"})
    assert long.violations().keys() == {"overlap"}
    foreign = post(hub, f"/consumers/bi/credentials/{integration.credential}:revoke", {})
    assert foreign.reason == "RECORD_NOT_FOUND"


def test_a_role_is_refused_field_by_field(hub: RunningHub) -> None:
    grant = {
        "dataset": "customers",
        "actions": ["read", "write"],
        "classMasks": {"PII": "starred"},
        "fieldMasks": {"fax": "hide", "credit_limit": "partial"},
        "rowFilter": "fax = 1",
    }
    refused = post(hub, "/roles", {"roleId": "t-bad", "grants": [grant]})
    assert refused.status == 400
    assert refused.violations().keys() == {
        "grants[0].actions[1]",
        "grants[0].classMasks[PII]",
        "grants[0].fieldMasks[fax]",
        "grants[0].fieldMasks[credit_limit]",
        "grants[0].rowFilter",
    }
    assert hub.get("/v1/access/roles/t-bad").status == 404


def test_a_narrowed_role_is_in_force_everywhere(hub: RunningHub, integration: Integration) -> None:
    def fields() -> set[str]:
        page = done(integration.get("/v1/customers", page_size=1))
        return set(page["customers"][0])

    assert "email" in fields()
    integration.update_role({**READ_CLEAR, "fieldMasks": {"email": "hide"}})
    in_force(lambda: "email" not in fields())
    integration.update_role()
    in_force(lambda: integration.get("/v1/customers").status == 403)
    held = delete(hub, f"/roles/{integration.name}")
    assert (held.status, held.reason) == (400, "ROLE_IN_USE")
    assert integration.name in held.json()["message"]
    done(patch(hub, f"/consumers/{integration.name}", {"active": False}))
    in_force(lambda: integration.get("/v1/customers").status == 401)


def test_history_says_who_what_and_why(hub: RunningHub, integration: Integration) -> None:
    before = revision(hub)
    grant = {**READ_CLEAR, "fieldMasks": {"email": "partial"}, "rowFilter": "status = ACTIVE"}
    reply = patch(
        hub,
        f"/roles/{integration.name}",
        {"grants": [grant]},
        comment="fewer",
        update_mask="grants",
    )
    after = int(done(reply)["policyRevision"])
    assert after == before + 1
    newest = done(hub.get("/v1/access/revisions", page_size=1))["revisions"][0]
    assert (newest["consumerId"], newest["comment"]) == ("admin", "fewer")
    assert newest["requestId"] == reply.request_id and "roles" not in newest
    found = done(hub.get("/v1/access/revisions:compare", from_revision=before, to_revision=after))
    subject = f"role {integration.name}"
    assert [d["text"] for d in found["differences"]] == [
        f"{subject}: customers.email as its class -> partial",
        f"{subject}: customers rows all -> status = ACTIVE",
    ]
    document = done(hub.get(f"/v1/access/revisions/{before}"))
    role = next(r for r in document["roles"] if r["roleId"] == integration.name)
    assert "fieldMasks" not in role["grants"][0]
    told = hub.sql(
        "SELECT query ->> 'change', record_key FROM hub.audit_entry WHERE request_id = $1",
        reply.request_id,
    )
    assert [(json.loads(change), key) for change, key in told] == [
        ([d["text"] for d in found["differences"]], f"roles/{integration.name}")
    ]
    assert hub.get("/v1/access/revisions/999999").reason == "RECORD_NOT_FOUND"


def test_sql_by_hand_is_one_revision_a_transaction_too(hub: RunningHub) -> None:
    before = revision(hub)
    hub.sql("INSERT INTO hub.role (role_id) VALUES ('t-sql')")
    hub.sql(
        "WITH gone AS (DELETE FROM hub.role WHERE role_id = 't-sql' RETURNING role_id)"
        " UPDATE hub.consumer SET title = title WHERE consumer_id = 'bi'"
    )
    assert revision(hub) == before + 2
    rows = hub.sql(
        "SELECT consumer_id, database_user FROM hub.policy_revision WHERE revision > $1", before
    )
    assert rows == [(None, "penstock")] * 2
    found = done(hub.get("/v1/access/revisions:compare", from_revision=before))
    assert "differences" not in found
    found = done(
        hub.get("/v1/access/revisions:compare", from_revision=before, to_revision=before + 1)
    )
    assert [d["text"] for d in found["differences"]] == ["role t-sql: added"]


def test_rollback_brings_roles_back_and_leaves_credentials(
    hub: RunningHub, integration: Integration
) -> None:
    before = revision(hub)
    integration.update_role({**READ_CLEAR, "rowFilter": "status = CHURNED"})
    done(patch(hub, f"/consumers/{integration.name}", {}, update_mask="roles"))
    key, _ = integration.issue("API_KEY")
    in_force(lambda: integration.get("/v1/customers", key).status == 403)
    late = f"{integration.name}-late"
    done(post(hub, "/consumers", {"consumerId": late, "roles": ["bi"]}))
    made = done(post(hub, f"/revisions/{before}:rollback", {"comment": "too far"}))
    assert made["comment"] == "too far"
    assert int(made["revision"]) == before + 5 == revision(hub)
    found = done(hub.get("/v1/access/revisions:compare", from_revision=before))
    assert {d["subject"] for d in found["differences"]} == {f"consumer {late}"}
    assert "roles" not in done(hub.get(f"/v1/access/consumers/{late}"))
    everyone = hub.sql("SELECT count(*) FROM data.customers")[0][0]
    assert everyone > 0

    def all_seen() -> bool:
        page = integration.get("/v1/customers", key, page_size=1000, fields="customer_id")
        return page.status == 200 and len(page.json()["customers"]) == min(everyone, 1000)

    in_force(all_seen)
    delete(hub, f"/consumers/{late}")


def test_a_rollback_to_what_the_model_has_no_more_is_refused(
    hub: RunningHub, integration: Integration
) -> None:
    old = revision(hub)
    # The revision as if the model had lost a field and a dataset since then.
    spoiled = {
        "dataset": "faxes",
        "grant": {"actions": ["read"], "class_masks": {}, "field_masks": {}, "row_filter": ""},
    }
    hub.sql(
        "WITH spoiled AS (INSERT INTO hub.policy_document (digest, document)"
        " SELECT '\\x00', jsonb_set(jsonb_set(document, ARRAY['roles', $1, 'grants', 'faxes'],"
        " $2::text::jsonb), ARRAY['roles', $1, 'grants', 'customers', 'field_masks'],"
        ' \'{"fax": "hide"}\') FROM hub.policy_document JOIN hub.policy_revision USING (digest)'
        " WHERE revision = $3 RETURNING digest)"
        " INSERT INTO hub.policy_revision (revision, digest) SELECT -1, digest FROM spoiled",
        integration.name,
        json.dumps(spoiled["grant"]),
        old,
    )
    try:
        refused = post(hub, "/revisions/-1:rollback", {})
        assert (refused.status, refused.reason) == (400, "ROLLBACK_IMPOSSIBLE")
        place = f"roles[{integration.name}].grants"
        assert refused.violations() == {
            f"{place}[1].dataset": "there is no dataset 'faxes'",
            f"{place}[0].fieldMasks[fax]": "customers has no field 'fax'",
        }
        assert revision(hub) == old
    finally:
        hub.sql("DELETE FROM hub.policy_revision WHERE revision = -1")
        hub.sql("DELETE FROM hub.policy_document WHERE digest = '\\x00'")


def test_last_use_is_noted_without_a_revision(hub: RunningHub, integration: Integration) -> None:
    """A worker records the first uses that it sees at once, and later ones within a minute."""

    def used(consumer: str) -> dict[str, bool]:
        listed = done(hub.get(f"/v1/access/consumers/{consumer}/credentials"))["credentials"]
        return {c["kind"]: "lastUseTime" in c for c in listed}

    # The administrator's key loaded the demo.
    eventually(lambda: used("admin")["API_KEY"])
    integration.issue("CLIENT_SECRET")
    assert used(integration.name)["CLIENT_SECRET"] is False


async def test_uses_are_written_together(hub: RunningHub, integration: Integration) -> None:
    database = Database(hub.dsn, size=2)
    await database.open()
    try:
        uses = CredentialUses(database, Credentials(FixedKey(b"p" * 32)))
        for credential in (integration.credential, "no-such", ""):
            uses.note(credential)
        async with database.connection() as connection:
            before = await connection.fetchval("SELECT revision FROM hub.policy")
        await uses.flush()
        await uses.flush()
        async with database.connection() as connection:
            query = (
                "SELECT count(*), max(now() - last_use_time) < interval '1 minute'"
                " FROM hub.credential_use WHERE credential_id = ANY($1)"
            )
            row = await connection.fetchrow(query, [integration.credential, "no-such"])
            assert tuple(row or ()) == (1, True)
            # Another process may record its own uses later.
            await connection.execute(
                "UPDATE hub.credential_use SET last_use_time = '2100-01-01'"
                " WHERE credential_id = $1",
                integration.credential,
            )
            uses.note(integration.credential)
            await uses.flush()
            newest = await connection.fetchval(
                "SELECT last_use_time FROM hub.credential_use WHERE credential_id = $1",
                integration.credential,
            )
            assert newest.year == 2100
            assert await connection.fetchval("SELECT revision FROM hub.policy") == before
    finally:
        await database.close()


def test_explain_names_grant_and_rule(hub: RunningHub) -> None:
    found = done(post(hub, ":explain", {"dataset": "orders", "consumerId": "bi", "key": "no-such"}))
    assert found["roles"] == ["bi"] and found["active"] is True
    assert [a["action"] for a in found["actions"] if a.get("allowed")] == ["read"]
    assert found["rows"]["rules"] == [{"role": "bi", "rowFilter": "customer.status = ACTIVE"}]
    assert found["record"] == {"key": "no-such", "reason": "there is no such record"}
    churned = hub.sql("SELECT customer_id FROM data.customers WHERE status = 'CHURNED' LIMIT 1")
    active = hub.sql("SELECT customer_id FROM data.customers WHERE status = 'ACTIVE' LIMIT 1")
    for ((key,),), visible in ((churned, False), (active, True)):
        body = {"dataset": "customers", "consumerId": "bi", "key": key}
        record = done(post(hub, ":explain", body))["record"]
        assert record["exists"] is True and record.get("visible", False) is visible
        assert (hub.get(f"/v1/customers/{key}", "bi").status == 200) is visible
    wrong = post(hub, ":explain", {"dataset": "customers", "consumerId": "bi", "roles": ["bi"]})
    assert wrong.reason == "VALUE_INVALID"
    assert post(hub, ":explain", {"dataset": "faxes", "consumerId": "bi"}).violations() == {
        "dataset": "there is no dataset 'faxes'"
    }
    assert post(hub, ":explain", {"dataset": "orders", "roles": ["no"]}).status == 404


def test_claims_fill_row_rules(hub: RunningHub) -> None:
    grant = {**READ_CLEAR, "rowFilter": "source = claims.source"}
    made = Integration(hub, grant, claims={"source": {"values": ["erp"]}})
    try:
        body = {"dataset": "customers", "consumerId": made.name}
        rule = done(post(hub, ":explain", body))["rows"]["rules"][0]
        assert rule["claims"] == {"source": {"values": ["erp"]}}
        claims = {"source": {"values": ["web", "shop"]}}
        other: dict[str, Any] = {"roles": [made.name], "claims": claims}
        wanted = {
            key
            for (key,) in hub.sql("SELECT customer_id FROM data.customers WHERE source = 'shop'")
        }
        other |= {"dataset": "customers", "fields": "customer_id", "limit": 100}
        shown = done(post(hub, ":preview", other))["records"]
        assert shown and {r["customerId"] for r in shown} <= wanted
        none = done(post(hub, ":explain", {"dataset": "customers", "roles": [made.name]}))
        assert none["rows"]["rules"][0]["claims"] == {"source": {}}
        lacking = {"dataset": "customers", "roles": [made.name]}
        assert "records" not in done(post(hub, ":preview", lacking))
    finally:
        made.remove()


def test_a_preview_is_what_the_consumer_gets(hub: RunningHub) -> None:
    query = {"filter": "kind = COMPANY", "order_by": "name desc", "fields": "name,email"}
    body = {"dataset": "customers", "consumerId": "bi", "limit": 7, **query}
    reply = post(hub, ":preview", body)
    listed = done(hub.get("/v1/customers", "bi", page_size=7, **query))["customers"]
    shown = [{k: v for k, v in r.items() if k != "@type"} for r in done(reply)["records"]]
    assert shown == listed and reply.json()["fields"] == ["name", "email"]
    entry = hub.sql(
        "SELECT consumer_id, dataset, query ->> 'consumer_id', query ->> 'roles', row_count"
        " FROM hub.audit_entry WHERE request_id = $1",
        reply.request_id,
    )
    assert entry == [("admin", "customers", "bi", '["bi"]', 7)]
    hidden = post(hub, ":preview", {**body, "filter": "tax_id:*"})
    assert hidden.reason == "FIELD_UNKNOWN"
    denied = post(hub, ":preview", {"dataset": "products", "roles": ["crm"]})
    assert denied.status == 403


def calls_to_rehearse(hub: RunningHub, made: Integration) -> tuple[Reply, int]:
    """Make calls of many kinds, three of which need email and one of which fails. Returns the last
    of the three, and the number of successful calls on customers, including those of the setup."""
    key = hub.sql("SELECT customer_id FROM data.customers WHERE status = 'ACTIVE' LIMIT 1")[0][0]
    for _ in range(3):
        done(made.get(f"/v1/customers/{key}"))
    done(made.get("/v1/customers", filter='email = "x@y.z"', page_size=1))
    done(made.get("/v1/customers", order_by="email", page_size=1))
    last = made.get(f"/v1/customers/{key}", fields="name,email")
    assert last.status == 200
    exported = made.get("/v1/customers:export", format="CSV", limit=1)
    assert exported.status == 200
    assert made.get("/v1/customers", filter="fax = 1").status == 400
    succeeded = hub.sql(
        "SELECT count(*) FROM hub.audit_entry WHERE consumer_id = $1 AND phase = 'CALL'"
        " AND outcome = 'OK' AND dataset = 'customers'",
        made.name,
    )[0][0]
    return last, succeeded


def rehearsed(hub: RunningHub, made: Integration, **change: Any) -> Any:
    """The effect of a change on its only consumer and dataset."""
    (effect,) = done(post(hub, ":rehearse", change))["consumers"]
    assert effect["consumerId"] == made.name
    (dataset,) = effect["datasets"]
    return dataset


def count_customers(hub: RunningHub) -> tuple[int, int]:
    """Count all customers, and the active ones."""
    total, active = hub.sql(
        "SELECT count(*), count(*) FILTER (WHERE status = 'ACTIVE') FROM data.customers"
    )[0]
    return total, active


NARROWED = {
    **READ_CLEAR,
    "fieldMasks": {"email": "hide", "phone": "null"},
    "rowFilter": "status = ACTIVE",
}


def test_a_rehearsal_counts_known_calls_and_rows(hub: RunningHub, integration: Integration) -> None:
    made = integration
    last, setup = calls_to_rehearse(hub, made)
    dataset = rehearsed(hub, made, role={"roleId": made.name, "grants": [NARROWED]}, days=1)
    fields = {f["path"]: f for f in dataset["fields"]}
    assert {p: (f["before"], f["after"]) for p, f in fields.items()} == {
        "email": ("clear", "hide"),
        "phone": ("clear", "null"),
    }
    assert fields["email"]["callCount"] == "3" and "callCount" not in fields["phone"]
    assert int(dataset["callCount"]) == setup
    assert dataset["failingCallCount"] == "3" and "deniedCallCount" not in dataset
    (moment,) = hub.sql(
        "SELECT entry_time FROM hub.audit_entry WHERE request_id = $1", last.request_id
    )[0]
    assert datetime.fromisoformat(dataset["lastFailingCallTime"]) == moment
    total, active = count_customers(hub)
    assert int(dataset["rowCount"]) == total
    assert int(dataset["lostRowCount"]) == total - active and "gainedRowCount" not in dataset
    dataset = rehearsed(hub, made, role={"roleId": made.name}, days=1)
    assert dataset["lostActions"] == ["read"] and int(dataset["deniedCallCount"]) == setup
    assert int(dataset["lostRowCount"]) == total


def test_a_rehearsal_of_an_earlier_revision(hub: RunningHub, integration: Integration) -> None:
    made = integration
    before = revision(hub)
    made.update_role(NARROWED)
    total, active = count_customers(hub)
    back = done(post(hub, ":rehearse", {"revision": before}))
    (dataset,) = back["consumers"][0]["datasets"]
    assert int(dataset["gainedRowCount"]) == total - active
    assert int(dataset["rowCount"]) == active
    assert [d["part"] for d in back["differences"]] == [
        "customers.email",
        "customers.phone",
        "customers rows",
    ]
    role = {"roleId": made.name, "grants": [NARROWED]}
    for bad in ({"role": role, "revision": 1}, {}, {"role": role, "days": 91}):
        assert post(hub, ":rehearse", bad).reason == "VALUE_INVALID"
