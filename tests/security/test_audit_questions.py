"""The questions of auditors: entries, disclosures, copies and proofs, by API and command line."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness import RunningHub, eventually, folder, new_customer
from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.entry import LOST
from penstockd.audit.shown import digest_of
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors

pytestmark = pytest.mark.lane(priority=1)

ENTRIES, AUDIT = "/v1/audit/entries", "/v1/audit"


def disclosures(hub: RunningHub, key: str, **query: Any) -> list[dict[str, Any]]:
    """All disclosures of a customer, newest first."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        path = f"{AUDIT}/disclosures/customers/{quote(key)}"
        page = hub.get(path, page_token=token, **query).json()
        found += page.get("disclosures", [])
        token = page.get("nextPageToken", "")
        if not token:
            return found


def made(hub: RunningHub, **values: object) -> str:
    """The key of a new customer."""
    record = new_customer(email="jo@example.com", status="ACTIVE", **values)
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return str(record["customerId"])


@pytest.mark.parametrize(
    "path",
    ["/entries", "/entries:export", "/entries:verify", "/checkpoint", "/disclosures/customers/c1"],
)
def test_only_auditors_may_ask_and_all_who_ask_are_audited(hub: RunningHub, path: str) -> None:
    for consumer, outcome in (("bi", "PERMISSION_DENIED"), ("admin", "OK")):
        reply = hub.get(AUDIT + path, consumer)
        assert (reply.status == 200) is (outcome == "OK")
        query: dict[str, Any] = {"filter": f'request_id = "{reply.request_id}" AND phase = CALL'}
        (entry,) = hub.get(ENTRIES, **query).json()["entries"]
        assert (entry["outcome"], entry["consumerId"]) == (outcome, consumer)
        assert (entry["surface"], entry["peer"]) == ("REST", "127.0.0.1")


def test_entries_are_found_by_any_of_their_fields(hub: RunningHub) -> None:
    key = made(hub)
    hub.get(f"/v1/customers/{key}", "bi", fields="name,email")
    query: dict[str, Any] = {"filter": f'record_key = "{key}" AND consumer_id = bi'}
    (entry,) = hub.get(ENTRIES, **query).json()["entries"]
    assert entry["method"].endswith("/GetCustomer")
    assert entry["rule"] == {
        "dataset": "customers",
        "fields": {"name": "clear", "email": "partial"},
        "roles": ["bi"],
        "rowFilters": ["status = ACTIVE"],
    }
    assert json.loads(entry["query"]) == {"fields": "name,email"}
    assert (entry["rowCount"], int(entry["byteCount"]) > 10) == ("1", True)
    for name in ("entryId", "policyRevision", "phase", "outcome", "method", "peer", "time"):
        more = f'{query["filter"]} AND {name} = "{entry[name]}"'
        assert len(hub.get(ENTRIES, filter=more).json()["entries"]) == 1, name
    between: dict[str, Any] = {"start_time": entry["time"], "end_time": "2999-01-01T00:00:00Z"}
    assert len(hub.get(ENTRIES, **query, **between).json()["entries"]) == 1
    before: dict[str, Any] = {"end_time": entry["time"]}
    assert hub.get(ENTRIES, **query, **before).json().get("entries", []) == []
    for bad, reason in (("colour = x", "FIELD_UNKNOWN"), ("phase =", "FILTER_INVALID")):
        assert hub.get(ENTRIES, filter=bad).reason == reason
    swapped: dict[str, Any] = {
        "start_time": "2025-02-01T00:00:00Z",
        "end_time": "2025-01-01T00:00:00Z",
    }
    assert hub.get(ENTRIES, **swapped).reason == "VALUE_INVALID"


def test_pages_of_entries_are_complete_and_bound_to_their_query(hub: RunningHub) -> None:
    key = made(hub)
    for _ in range(7):
        hub.get(f"/v1/customers/{key}", "bi")
    query: dict[str, Any] = {"filter": f'record_key = "{key}"', "page_size": 3}
    ids: list[int] = []
    token = ""
    while True:
        page = hub.get(ENTRIES, **query, page_token=token).json()
        ids += [int(e["entryId"]) for e in page["entries"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
        foreign = hub.get(ENTRIES, filter="phase = CALL", page_size=3, page_token=token)
        assert foreign.reason == "PAGE_TOKEN_INVALID"
    assert len(ids) == len(set(ids)) == 8
    assert ids == sorted(ids, reverse=True)


def test_who_received_a_customers_e_mail(hub: RunningHub) -> None:
    """Through every interface; the answer omits consumers that did not receive it."""
    key, other = made(hub), made(hub)
    path, only = f"/v1/customers/{key}", f'customer_id = "{key}"'
    hub.get(path, "bi")
    hub.get(path, "crm", fields="name")
    hub.get(f"/v1/customers/{other}", "bi")
    hub.get("/v1/customers", "crm", filter=only)
    hub.get("/v1/customers", "crm", filter=f'customer_id = "{other}"')
    hub.get("/v1/customers:exportPage", "crm", filter=only, format="XML")
    hub.get("/v1/customers:export", "bi", filter=only, format="CSV")
    hub.get("/v1/customers:export", "bi", filter=f'customer_id = "{other}"', format="CSV")
    hub.request("PATCH", path, consumer="crm", json_body={"name": "N"})
    hub.get(path, "admin", fields="phone")
    assert hub.request("DELETE", path, consumer="crm").status == 200
    eventually(lambda: len(disclosures(hub, key, field="email")) == 6)
    found = [
        (d["consumerId"], d["method"].rpartition("/")[2], d.get("format", ""), d["fields"]["email"],
         d["certainty"])
        for d in reversed(disclosures(hub, key, field="email", page_size=2))
    ]  # fmt: skip
    assert found == [
        ("admin", "CreateCustomer", "", "clear", "EXACT"),
        ("bi", "GetCustomer", "", "partial", "EXACT"),
        ("crm", "ListCustomers", "", "clear", "EXACT"),
        ("crm", "ExportCustomers", "XML", "clear", "PROBABLE"),
        ("bi", "StreamExportCustomers", "CSV", "partial", "PROBABLE"),
        ("crm", "UpdateCustomer", "", "clear", "EXACT"),
    ]
    whole = disclosures(hub, key)
    assert len(whole) == 8
    (export,) = [d for d in whole if d.get("format") == "CSV"]
    assert (export["roles"], export["rowFilters"]) == (["bi"], ["status = ACTIVE"])
    assert export["complete"] and export["receiptId"]
    assert {d["consumerId"] for d in disclosures(hub, key, recipient="bi")} == {"bi"}
    newest = whole[0]["time"]
    assert [d["time"] for d in disclosures(hub, key, start_time=newest)] == [newest]
    assert len(disclosures(hub, key, end_time=newest)) == 7


def test_a_field_is_found_by_all_of_its_names(hub: RunningHub) -> None:
    """A misspelt name is refused: "nobody received it" would be a wrong answer."""
    key = f"t-names-{uuid.uuid4().hex[:8]}"
    lines = [{"productId": "p", "quantity": 1, "unitPrice": "1"}]
    order = {"orderId": key, "customerId": "c", "lines": lines}
    assert hub.request("POST", "/v1/orders", consumer="admin", json_body=order).status == 200
    dataset = load_catalog(find_descriptors())["orders"]
    asked = {path for f in dataset.every_field for path in (f.path, f.json_path)}
    asked |= {"shipping_address", "shippingAddress"}
    for name in sorted(asked):
        found = hub.get(f"{AUDIT}/disclosures/orders/{key}", field=name).json()["disclosures"]
        assert [d["method"].rpartition("/")[2] for d in found] == ["CreateOrder"], name
    within = hub.get(f"{AUDIT}/disclosures/orders/{key}", field="shippingAddress").json()
    paths = {f.path for f in dataset.fields if f.path.startswith("shipping_address.")}
    assert within["disclosures"][0]["fields"].keys() == paths
    for where, field in (("orders", "unit_price"), ("orders", "lines.unit"), ("order", "")):
        refused = hub.get(f"{AUDIT}/disclosures/{where}/{key}", field=field)
        assert (refused.status, refused.reason) == (400, "VALUE_INVALID"), refused.text
        assert list(refused.violations()) == ["field" if field else "dataset"]


def test_what_is_no_longer_in_the_model_can_be_asked_for(hub: RunningHub) -> None:
    rule = {"dataset": "gone", "fields": {"a.b": "clear"}, "roles": [], "row_filters": []}
    content = json.dumps(rule)
    hub.sql("INSERT INTO hub.audit_shown VALUES ($1, $2)", digest_of(content), content)
    for field in ("", "a", "a.b"):
        assert hub.get(f"{AUDIT}/disclosures/gone/k", field=field).json() == {"disclosures": []}
    refused = hub.get(f"{AUDIT}/disclosures/gone/k", field="b")
    assert list(refused.violations()) == ["field"]


def test_an_export_whose_end_is_unknown_may_have_held_anything(hub: RunningHub) -> None:
    """For a product, which no other test asks about; it need not exist."""
    exported = hub.get("/v1/products:export", "bi", limit=1, format="CSV")
    path = f"{AUDIT}/disclosures/products/absent"
    assert hub.get(path).json()["disclosures"] == []
    # As a killed worker leaves it.
    hub.sql(
        "INSERT INTO hub.audit_entry (request_id, policy_revision, method, consumer_id, dataset,"
        " shown, outcome) SELECT 'killed', policy_revision, method, consumer_id, dataset, shown,"
        " 'OK' FROM hub.audit_entry WHERE request_id = $1 AND phase = 'CALL'",
        exported.request_id,
    )
    (possible,) = hub.get(path).json()["disclosures"]
    assert (possible["certainty"], possible.get("complete", False)) == ("POSSIBLE", False)
    # The keeper ends it by what the worker noted a while before: more may have left since.
    end = (
        "INSERT INTO hub.audit_entry (request_id, phase, policy_revision, method, outcome,"
        " row_count) SELECT request_id, 'END', policy_revision, method, $1, 0"
        " FROM hub.audit_entry WHERE request_id = 'killed' AND phase = 'CALL'"
    )
    hub.sql(end, LOST)
    assert hub.get(path).json()["disclosures"] == [possible]
    hub.sql(end, "CANCELLED")  # the control: a worker's own entry decides
    assert hub.get(path).json()["disclosures"] == []


def filed(hub: RunningHub) -> bool:
    """Whether every checkpoint is in the file, too, which gets them a moment after the database."""
    reply = hub.get(ENTRIES + ":verify").json()
    assert reply["intact"] and int(reply["entryCount"]) > 0, reply
    return bool(reply["checkpointCount"] == reply["filedCount"])


def test_the_audit_proves_itself_while_calls_come_in(hub: RunningHub) -> None:
    for _ in range(3):
        hub.get("/v1/customers", "bi", page_size=1)
        eventually(lambda: filed(hub))
    newest = hub.get(AUDIT + "/checkpoint").json()
    lines = (hub.data / "audit" / "checkpoints.jsonl").read_text().splitlines()
    # The file also has the epochs, which are not signed and belong to no checkpoint.
    assert Checkpoint.parse(newest["line"]) in [Checkpoint.parse(line) for line in lines]
    done = hub.command("audit", "verify").stdout.decode()
    assert done.startswith("intact;") and newest["fingerprint"] in done


def test_a_copy_is_verified_without_the_hub(hub: RunningHub) -> None:
    created = made(hub).encode()
    hub.get("/v1/customers", page_size=1)  # so that it is not the last
    eventually(lambda: "unsealedCount" not in hub.get(ENTRIES + ":verify").json())
    with folder() as here:
        copy = here / "audit.ndjson"
        hub.command("audit", "export", "--as", "admin", "-o", str(copy))
        key = hub.get(AUDIT + "/checkpoint").json()["publicKey"]
        options = ("--copy", str(copy), "--public-key", key)
        elsewhere: dict[str, Any] = {"PENSTOCK_DATA_DIR": str(here / "none")}
        assert b"intact;" in hub.command("audit", "verify", *options, **elsewhere).stdout
        assert not (here / "none").exists(), "with a key given, no secret is made"
        lines = copy.read_bytes().splitlines(keepends=True)
        target = next(i for i, li in enumerate(lines) if created in li and b"admin" in li)
        sequence = json.loads(lines[target])["sequence"]
        for change in (
            [*lines[:target], lines[target].replace(b"admin", b"nobody"), *lines[target + 1 :]],
            lines[:target] + lines[target + 1 :],
            [*lines[:target], lines[target + 1], lines[target], *lines[target + 2 :]],
        ):
            copy.write_bytes(b"".join(change))
            done = hub.command("audit", "verify", *options, check=False, **elsewhere)
            assert done.returncode == 1
            assert f"sequence {sequence}" in done.stdout.decode().splitlines()[0]
        copy.write_bytes(b"".join(lines[:-1]))
        assert hub.command("audit", "verify", *options, check=False, **elsewhere).returncode == 1
        _wrong_use(hub, copy)


def _wrong_use(hub: RunningHub, copy: Path) -> None:
    copy.write_bytes(b"no copy\n")
    assert hub.command("audit", "verify", "--copy", str(copy), check=False).returncode == 2
    wrong = hub.command("audit", "verify", "--public-key", "AAAA", check=False)
    assert (wrong.returncode, b"not a public key" in wrong.stderr) == (2, True)


def test_auditors_have_commands(hub: RunningHub) -> None:
    key = made(hub)
    hub.command("get", "customers", key, "--as", "bi")
    listed = hub.command("audit", "list", "--filter", f'record_key = "{key}"').stdout.decode()
    assert "GetCustomer" in listed and "CreateCustomer" in listed
    options = ("customers", key, "--field", "email", "--to", "bi", "--format", "json")
    (shown,) = json.loads(hub.command("audit", "disclosures", *options).stdout)
    assert (shown["consumer_id"], shown["fields"]) == ("bi", {"email": "partial"})
    assert b'"publicKey"' in hub.command("audit", "checkpoint").stdout
    refused = hub.command("audit", "list", "--as", "crm", check=False)
    assert refused.returncode == 1 and b"audit.read" in refused.stderr
