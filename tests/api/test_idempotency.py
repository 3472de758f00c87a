"""A call that is repeated with its request id has no further effect and gets the same reply."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import Reply, RunningHub, eventually, new_customer
from narrowing import narrowed

REPLAYED = "penstock-replayed"
Send = Callable[[RunningHub, str], Reply]


def send(hub: RunningHub, method: str, path: str, body: Any, **more: Any) -> Reply:
    if isinstance(body, bytes):
        return hub.request(method, path, consumer="admin", body=body, **more)
    return hub.request(method, path, consumer="admin", json_body=body, **more)


def with_id(path: str, request_id: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}request_id={request_id}"


def calls(hub: RunningHub) -> dict[str, tuple[str, str, Any, Any]]:
    """Calls of each method, each with a different body under the same request id."""
    there, new = new_customer(), new_customer()
    assert send(hub, "POST", "/v1/customers", there).status == 200
    path = f"/v1/customers/{there['customerId']}"
    row = new_customer()["customerId"]
    return {
        "create": ("POST", "/v1/customers", new, {**new, "name": "Other"}),
        "update": ("PATCH", path, {"notes": "n"}, {"notes": "m"}),
        "batch": (
            "POST",
            "/v1/customers:batchUpsert",
            {"customers": [new_customer(), {**there, "source": "b"}]},
            {"customers": [new_customer()]},
        ),
        "import": (
            "POST",
            "/v1/customers:import?format=csv&partial=true",
            f"customer_id,name,credit_limit\n{row},n,1\nx,n,much\n".encode(),
            f"customer_id,name,credit_limit\n{row},m,1\nx,n,much\n".encode(),
        ),
        "delete": ("DELETE", path, None, None),
    }


def test_every_method_does_it_once_and_says_it_again(hub: RunningHub) -> None:
    for name, (method, path, body, other) in calls(hub).items():
        request_id, before = str(uuid.uuid4()), hub.head()
        first = send(hub, method, with_id(path, request_id), body)
        assert first.status == 200 and REPLAYED not in first.headers, first.text
        written = hub.head()
        assert written > before, name
        again = send(hub, method, with_id(path, request_id), body)
        assert (again.status, again.body) == (200, first.body), name
        assert again.headers[REPLAYED] == "true"
        header = {"Idempotency-Key": f'"{request_id}"'}
        by_header = send(hub, method, path, body, headers=header)
        if name == "batch":  # the batch's body does not contain the id
            assert by_header.headers[REPLAYED] == "true"
        assert (by_header.status, by_header.body) == (200, first.body), name
        assert hub.head() == written, name
        if name == "delete":
            path += "x"
        reused = send(hub, method, with_id(path, request_id), other)
        assert (reused.status, reused.reason) == (400, "REQUEST_ID_REUSED"), name
        # A call with a JSON body gets JSON names.
        named = "requestId" if isinstance(body, dict) and name != "import" else "request_id"
        assert list(reused.violations()) == [named]
        assert hub.head() == written, name
        entries = hub.sql(
            "SELECT query->>'replayed', outcome FROM hub.audit_entry"
            # Queries of other tests may hold bytes that PostgreSQL cannot store as text.
            " WHERE CASE WHEN strpos(query::text, $1) > 0 THEN query->>'request_id' = $1 END"
            " ORDER BY entry_id",
            request_id,
        )
        assert entries == [
            (None, "OK"), ("true", "OK"), ("true", "OK"), (None, "REQUEST_ID_REUSED")
        ], name  # fmt: skip


def test_without_an_id_it_is_another_call(hub: RunningHub) -> None:
    """Negative control: without an id, the second call takes effect again."""
    record = new_customer()
    assert send(hub, "POST", "/v1/customers", record).status == 200
    assert send(hub, "POST", "/v1/customers", record).reason == "RECORD_EXISTS"


def test_the_id_of_another_method_or_consumer(hub: RunningHub) -> None:
    record, request_id = new_customer(), str(uuid.uuid4())
    path = with_id("/v1/customers", request_id)
    assert send(hub, "POST", path, record).status == 200
    deleted = send(
        hub, "DELETE", with_id(f"/v1/customers/{record['customerId']}", request_id), None
    )
    assert deleted.reason == "REQUEST_ID_REUSED"
    theirs = hub.request("POST", path, consumer="crm", json_body=record)
    assert theirs.reason == "RECORD_EXISTS", "ids of consumers are their own"


def test_an_id_is_given_in_one_way_and_plainly(hub: RunningHub) -> None:
    for path, headers in (
        (with_id("/v1/customers", "one"), {"Idempotency-Key": "two"}),
        ("/v1/customers", {"Idempotency-Key": ""}),
        ("/v1/customers", {"Idempotency-Key": '"with space"'}),
        ("/v1/customers", {"Idempotency-Key": "a,b"}),
        (with_id("/v1/customers", "x" * 129), {}),
        (with_id("/v1/customers", "%C3%BC"), {}),
    ):
        reply = send(hub, "POST", path, new_customer(), headers=headers)
        assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), (path, headers)
        assert list(reply.violations()) == ["requestId"]
    path, headers = with_id("/v1/customers", "x" * 128), {"Idempotency-Key": "x" * 128}
    assert send(hub, "POST", path, new_customer(), headers=headers).status == 200


def test_an_error_is_not_kept(hub: RunningHub) -> None:
    record, request_id = new_customer(), str(uuid.uuid4())
    path = with_id("/v1/customers", request_id)
    assert send(hub, "POST", "/v1/customers", record).status == 200
    assert send(hub, "POST", path, {**record, "name": "A"}).reason == "RECORD_EXISTS"
    assert send(hub, "DELETE", f"/v1/customers/{record['customerId']}", None).status == 200
    reply = send(hub, "POST", path, {**record, "name": "B"})
    assert (reply.status, reply.json()["name"]) == (200, "B")


def test_what_is_only_checked_takes_no_id(hub: RunningHub) -> None:
    record, request_id = new_customer(), str(uuid.uuid4())
    path = with_id("/v1/customers", request_id)
    for _ in range(2):
        checked = send(hub, "POST", path + "&validate_only=true", record)
        assert checked.status == 200 and REPLAYED not in checked.headers
    written = send(hub, "POST", path, record)
    assert written.status == 200 and REPLAYED not in written.headers


@pytest.mark.parametrize("kind", ["create", "batch", "import"])
def test_of_twenty_at_once_one_does_it(hub: RunningHub, kind: str) -> None:
    record, request_id = new_customer(), str(uuid.uuid4())
    header = {"Idempotency-Key": request_id}
    row = f"customer_id,name\n{record['customerId']},n\n".encode()
    method, path, body = {
        "create": ("POST", "/v1/customers", record),
        "batch": ("POST", "/v1/customers:batchUpsert", {"customers": [record]}),
        "import": ("POST", "/v1/customers:import?format=csv", row),
    }[kind]
    head = hub.head()
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: send(hub, method, path, body, headers=header), range(20)))
    done = [r for r in replies if r.status == 200]
    others = [r for r in replies if r.status != 200]
    assert done, [r.text for r in replies]
    assert {(r.status, r.reason) for r in others} <= {(409, "REQUEST_IN_FLIGHT")}
    for reply in others:
        delays = [d.get("retryDelay") for d in reply.json()["details"]]
        assert "1s" in delays, "it says when to try again"
    assert sum(REPLAYED not in r.headers for r in done) == 1
    assert len({r.body for r in done}) == 1
    assert hub.head() == head + 1
    late = send(hub, method, path, body, headers=header)
    assert (late.body, late.headers[REPLAYED]) == (done[0].body, "true")


def test_one_under_way_is_in_flight(hub: RunningHub) -> None:
    """The record's lock keeps the first call in its transaction."""
    record, request_id = new_customer(), str(uuid.uuid4())
    assert send(hub, "POST", "/v1/customers", record).status == 200
    path = with_id(f"/v1/customers/{record['customerId']}", request_id)
    key = record["customerId"]
    with ThreadPoolExecutor(1) as pool:
        with hub.holding(
            f"BEGIN; SELECT 1 FROM data.customers WHERE customer_id = '{key}' FOR UPDATE"
        ):
            first = pool.submit(send, hub, "PATCH", path, {"notes": "n"})
            waiting = (
                "SELECT count(*) FROM pg_locks"
                " WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
            )
            eventually(lambda: hub.sql(waiting) > [(0,)])
            second = send(hub, "PATCH", path, {"notes": "n"})
            assert (second.status, second.reason) == (409, "REQUEST_IN_FLIGHT")
        assert first.result().status == 200
    assert send(hub, "PATCH", path, {"notes": "n"}).headers[REPLAYED] == "true"


def test_a_replay_shows_no_more_than_the_caller_may_see_now(hub: RunningHub) -> None:
    record, request_id = new_customer(email="a@example.com"), str(uuid.uuid4())

    def create() -> Reply:
        path = with_id("/v1/customers", request_id)
        return hub.request("POST", path, consumer="crm", json_body=record)

    assert create().json()["email"] == "a@example.com"
    assert create().json()["email"] == "a@example.com"
    with narrowed(hub, field_masks=json.dumps({"create_time": "hide"})):
        hidden = create()
        assert hidden.headers[REPLAYED] == "true"
        assert "createTime" not in hidden.json() and "email" in hidden.json()
    with narrowed(hub, field_masks=json.dumps({"email": "hide"})):
        assert create().reason == "FIELD_UNKNOWN", "what was asked for names it"
    with narrowed(hub, row_filter="status = ACTIVE"):
        assert create().reason == "RECORD_NOT_FOUND"
    with narrowed(hub, actions="{read}"):
        assert create().reason == "PERMISSION_DENIED"
    assert create().json()["email"] == "a@example.com"


def test_allow_missing_and_records_out_of_sight(hub: RunningHub) -> None:
    """The existence of a record shows as much as in a create, not more."""
    shown, hidden = new_customer(status="ACTIVE"), new_customer(status="LEAD")
    for record in (shown, hidden):
        assert send(hub, "POST", "/v1/customers", record).status == 200
    before = hub.get(f"/v1/customers/{hidden['customerId']}").json()

    def patch(record: dict[str, Any], **more: str) -> Reply:
        path = f"/v1/customers/{record['customerId']}"
        query = {"allow_missing": "true", **more}
        return hub.request("PATCH", path, consumer="crm", json_body=record, query=query)

    def delete(key: str, **more: str) -> Reply:
        query = {"allow_missing": "true", **more}
        return hub.request("DELETE", f"/v1/customers/{key}", consumer="crm", query=query)

    with narrowed(hub, row_filter="status = ACTIVE"):
        assert patch({**shown, "notes": "n"}).status == 200
        made = patch(new_customer(status="ACTIVE", notes="m"), update_mask="notes")
        assert (made.status, made.json()["name"]) == (200, "Test"), "all that is set"
        assert patch({**hidden, "status": "ACTIVE"}).reason == "RECORD_NOT_FOUND"
        leaving = patch(new_customer(status="LEAD"))
        assert leaving.reason == "RECORD_NOT_FOUND", "it would be out of sight"
        with_etag = patch(new_customer(status="ACTIVE"), etag="1")
        assert with_etag.reason == "RECORD_NOT_FOUND", "a new record has no such etag"
        answers = [delete(key, **q) for key in (hidden["customerId"], "absent-one")
                   for q in ({}, {"etag": "1"})]  # fmt: skip
        assert {(r.status, r.body) for r in answers} == {(200, answers[0].body)}
    assert hub.get(f"/v1/customers/{hidden['customerId']}").json() == before
    with narrowed(hub, actions="{read,update}"):
        refused = patch(new_customer())
        assert refused.reason == "PERMISSION_DENIED", "who may not create does not"
        assert patch(shown).reason == "PERMISSION_DENIED", "whether or not it is there"
    path = f"/v1/customers/{new_customer()['customerId']}"
    assert send(hub, "PATCH", path, {"notes": "n"}).reason == "RECORD_NOT_FOUND"
    assert send(hub, "DELETE", path, None).reason == "RECORD_NOT_FOUND"


def test_validate_only_checks_everything_and_writes_nothing(hub: RunningHub) -> None:
    there, new = new_customer(), new_customer()
    etag = send(hub, "POST", "/v1/customers", there).json()["etag"]
    path, dry = f"/v1/customers/{there['customerId']}", "validate_only=true"
    before = hub.head(), hub.sql("SELECT count(*), max(etag) FROM data.customers")
    created = send(hub, "POST", f"/v1/customers?{dry}", new)
    assert new.items() <= created.json().items() and created.json()["etag"]
    changed = send(hub, "PATCH", f"{path}?{dry}&etag={etag}", {"notes": "n"})
    assert changed.json()["notes"] == "n"
    assert send(hub, "DELETE", f"{path}?{dry}", None).status == 200
    batch = {"customers": [new, {**there, "notes": "m"}], "validateOnly": True}
    reply = send(hub, "POST", "/v1/customers:batchUpsert", batch)
    assert reply.json() == {"createdCount": "1", "updatedCount": "1"}
    large = {"customers": [new_customer() for _ in range(700)], "validateOnly": True}
    reply = send(hub, "POST", "/v1/customers:batchUpsert", large)
    assert reply.json() == {"createdCount": "700"}
    rows = f"customer_id,name\n{new['customerId']},n\n".encode()
    reply = send(hub, "POST", f"/v1/customers:import?format=csv&{dry}", rows)
    assert reply.json() == {"rowCount": "1", "createdCount": "1"}
    for method, where, body, reason in (
        ("POST", "/v1/customers", there, "RECORD_EXISTS"),
        ("POST", "/v1/customers", {**new, "email": "no"}, "VALUE_INVALID"),
        ("PATCH", path, {"etag": "1", "notes": "n"}, "ETAG_MISMATCH"),
        ("PATCH", "/v1/customers/absent", {"notes": "n"}, "RECORD_NOT_FOUND"),
        ("DELETE", "/v1/customers/absent", None, "RECORD_NOT_FOUND"),
        ("POST", "/v1/customers:import?format=csv", b"customer_id\na\na\n", "IMPORT_ROW_INVALID"),
    ):
        reply = send(hub, method, f"{where}{'&' if '?' in where else '?'}{dry}", body)
        assert reply.reason == reason, where
    assert (hub.head(), hub.sql("SELECT count(*), max(etag) FROM data.customers")) == before
    marked = hub.sql(
        "SELECT query->>'validate_only', outcome FROM hub.audit_entry WHERE request_id = $1",
        created.request_id,
    )
    assert marked == [("true", "OK")]
