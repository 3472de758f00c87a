"""Partial batches and imports: the valid rows are written, the others are reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import Reply, RunningHub, in_json, new_customer
from narrowing import narrowed


def batch(hub: RunningHub, *records: Any, consumer: str = "admin", partial: bool = True) -> Reply:
    body = {"customers": records, "partial": partial}
    return hub.request("POST", "/v1/customers:batchUpsert", consumer=consumer, json_body=body)


def import_(
    hub: RunningHub, data: bytes, format: str = "csv", consumer: str = "admin", **query: str
) -> Reply:
    path = "/v1/customers:import"
    given = {"format": format, "partial": "true", **query}
    return hub.request("POST", path, consumer=consumer, body=data, query=given)


def errors(reply: Reply) -> list[tuple[str, str, str, str]]:
    found = reply.json().get("rowErrors", [])
    return [(e["row"], e.get("key", ""), e.get("field", ""), e["description"]) for e in found]


def keys(hub: RunningHub, prefix: str) -> set[str]:
    rows = hub.sql("SELECT customer_id FROM data.customers WHERE customer_id LIKE $1", prefix + "%")
    return {row[0] for row in rows}


#: A fault of a record, and the error for it.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"creditLimit": "much"}, "credit_limit", "is 'much', not a decimal number"),
    ({"creditLimit": "-1"}, "credit_limit", "must not be negative"),
    ({"email": "nobody"}, "email", "must be a valid email address"),
    ({"name": "n" * 501}, "name", "must be at most 500 characters"),
    ({"billingAddress": {"countryCode": "Germany"}}, "billing_address.country_code",
     "does not match regex pattern `^[A-Z]{2}$`"),
    ({"tags": ["ok", "t" * 201]}, "tags[1]", "must be at most 200 characters"),
]  # fmt: skip


@pytest.mark.parametrize("fill", [0, 150], ids=["few", "many"])
def test_a_batch_with_every_kind_of_bad_row(hub: RunningHub, fill: int) -> None:
    prefix = new_customer()["customerId"]
    good = [new_customer(customerId=f"{prefix}-{i}") for i in range(fill + 2)]
    wrong = [
        new_customer(customerId=f"{prefix}-bad{i}", **values)
        for i, (values, _, _) in enumerate(WRONG)
    ]
    records = [good[0], *wrong, good[1], {**good[0], "name": "Later"}, *good[2:]]
    refused = batch(hub, *records, partial=False)
    assert (refused.status, refused.reason) == (400, "VALUE_INVALID")
    fields = [f"customers[{i}].{path}" for i, (_, path, _) in enumerate(WRONG, 1)]
    assert list(refused.violations()) == [in_json(field) for field in fields]
    assert keys(hub, prefix) == set(), "by default it is all or nothing"
    head = hub.head()
    reply = batch(hub, *records)
    told = [
        (str(i), f"{prefix}-bad{i - 2}", path, what) for i, (_, path, what) in enumerate(WRONG, 2)
    ]
    twice = (str(len(WRONG) + 3), good[0]["customerId"], "customer_id", "occurs twice")
    assert errors(reply) == [*told, twice]
    counts = {"createdCount": str(fill + 2), "refusedCount": str(len(WRONG) + 1)}
    assert {k: v for k, v in reply.json().items() if k != "rowErrors"} == counts
    assert keys(hub, prefix) == {r["customerId"] for r in good}
    assert hub.head() == head + fill + 2
    assert hub.get(f"/v1/customers/{good[0]['customerId']}").json()["name"] == "Test"


@pytest.mark.parametrize("format", ["csv", "ndjson", "json"])
def test_an_import_with_every_kind_of_bad_row(hub: RunningHub, format: str) -> None:
    prefix = new_customer()["customerId"]
    wrong = [
        {"customerId": f"{prefix}-bad{i}", "name": "Bad", **v} for i, (v, _, _) in enumerate(WRONG)
    ]
    records = [
        {"customerId": f"{prefix}-0", "name": "First"},
        *wrong,
        {"customerId": "a\tb", "name": "Tab"},
        {"customerId": f"{prefix}-0", "name": "Later"},
        {"customerId": f"{prefix}-1", "name": "Last"},
    ]
    if format == "csv":
        rows = ["customer_id,name,email,credit_limit,billing_address.country_code,tags"]
        for r in records:
            tags = json.dumps(r.get("tags", [])).replace('"', '""')
            place = r.get("billingAddress", {}).get("countryCode", "")
            cells = [r["customerId"], r.get("name", ""), r.get("email", "")]
            rows.append(",".join([*cells, r.get("creditLimit", ""), place, f'"{tags}"']))
        data = "\n".join(rows).encode()
    elif format == "json":
        data = json.dumps(records).encode()
    else:
        data = "\n".join(map(json.dumps, records)).encode()
    strict = import_(hub, data, format, partial="false")
    assert (strict.status, strict.reason) == (400, "IMPORT_ROW_INVALID")
    assert f"rows[3].{WRONG[1][1]}" in strict.violations()
    assert keys(hub, prefix) == set()
    reply = import_(hub, data, format)
    assert reply.status == 200, reply.text
    told = [(str(i), path, what) for i, (_, path, what) in enumerate(WRONG, 2)]
    told.append(
        (
            str(len(WRONG) + 2),
            "customer_id",
            "contains a control character, which a key must not have",
        )
    )
    told.append((str(len(WRONG) + 3), "customer_id", "occurs twice"))
    assert [(row, path, what) for row, _, path, what in errors(reply)] == told
    body = reply.json()
    assert (body["rowCount"], body["createdCount"]) == (str(len(records)), "2")
    assert body["refusedCount"] == str(len(WRONG) + 2)
    assert keys(hub, prefix) == {f"{prefix}-0", f"{prefix}-1"}
    assert hub.get(f"/v1/customers/{prefix}-0").json()["name"] == "First"


def test_rows_out_of_sight_stay_and_none_leaves(hub: RunningHub) -> None:
    """For a caller that sees only active customers, in batches and files, small and large."""
    for fill in (0, 600):
        prefix = new_customer()["customerId"]
        hidden = new_customer(customerId=f"{prefix}-hidden", status="LEAD")
        shown = new_customer(customerId=f"{prefix}-shown", status="ACTIVE")
        assert batch(hub, hidden, shown).json() == {"createdCount": "2"}
        before = hub.sql("SELECT t::text FROM data.customers t WHERE customer_id = ANY($1)",
                         [hidden["customerId"], shown["customerId"]])  # fmt: skip
        records = [
            {**hidden, "status": "ACTIVE"},
            {**shown, "status": "CHURNED"},
            new_customer(customerId=f"{prefix}-out", status="LEAD"),
            *(new_customer(customerId=f"{prefix}-{i}", status="ACTIVE") for i in range(fill + 1)),
        ]
        with narrowed(hub, row_filter="status = ACTIVE"):
            lines = "\n".join(map(json.dumps, records)).encode()
            strict = batch(hub, *records, consumer="crm", partial=False)
            assert strict.reason == "RECORD_NOT_FOUND"
            for again, reply in enumerate(
                [batch(hub, *records, consumer="crm"), import_(hub, lines, "ndjson", "crm")]
            ):
                assert sorted((row, path) for row, _, path, _ in errors(reply)) == [
                    ("1", "customer_id"), ("2", ""), ("3", "")
                ], reply.text  # fmt: skip
                assert {what for _, _, _, what in errors(reply)} == {
                    "is not among the records that you may see",
                    "would leave the rows that you may see",
                }
                done = "unchangedCount" if again else "createdCount"
                assert reply.json()[done] == str(fill + 1)
        after = hub.sql("SELECT t::text FROM data.customers t WHERE customer_id = ANY($1)",
                        [hidden["customerId"], shown["customerId"]])  # fmt: skip
        assert sorted(after) == sorted(before)
        assert f"{prefix}-out" not in keys(hub, prefix)


def test_a_thousand_problems_are_told_and_all_are_counted(hub: RunningHub) -> None:
    prefix = new_customer()["customerId"]
    lines = [f"{prefix}-{i},N,{'x' if i % 10 else '1'}" for i in range(25_000)]
    data = "\n".join(["customer_id,name,credit_limit", *lines]).encode()
    reply = import_(hub, data)
    body = reply.json()
    assert (body["rowCount"], body["createdCount"], body["refusedCount"]) == (
        "25000", "2500", "22500"
    )  # fmt: skip
    assert len(body["rowErrors"]) == 1000
    assert len(keys(hub, prefix)) == 2500


@pytest.mark.parametrize("data", [b'customer_id,name\na,"b', b"customer_id,nothing\na,b\n", b""])
def test_a_file_that_cannot_be_read_is_refused_as_a_whole(hub: RunningHub, data: bytes) -> None:
    prefix = new_customer()["customerId"]
    data = data.replace(b"\na,", f"\n{prefix}-0,good\n{prefix}-1,".encode())
    assert import_(hub, data).status == 400
    assert keys(hub, prefix) == set()


def test_what_the_caller_may_not_write_refuses_all(hub: RunningHub) -> None:
    record = new_customer(taxId="DE 1")
    reply = batch(hub, new_customer(), record, consumer="crm")
    assert (reply.status, reply.reason) == (400, "FIELD_UNKNOWN")
    assert hub.get(f"/v1/customers/{record['customerId']}").status == 404


def test_the_command_shows_the_bad_rows_and_fails(hub: RunningHub, tmp_path: Any) -> None:
    prefix = new_customer()["customerId"]
    file = tmp_path / "some.csv"
    file.write_text(f"customer_id,name,email\n{prefix}-0,A,a@b.c\n{prefix}-1,B,nobody\n")
    command = ("import", "customers", str(file), "--partial")
    checked = hub.command(*command, "--validate-only", check=False)
    assert checked.returncode == 1 and keys(hub, prefix) == set()
    loaded = hub.command(*command, "--request-id", prefix, check=False)
    assert loaded.returncode == 1
    assert b"1 created" in loaded.stdout
    said = loaded.stderr.decode()
    assert "email" in said and "1 bad row; the others were loaded" in said
    assert keys(hub, prefix) == {f"{prefix}-0"}
    head = hub.head()
    again = hub.command(*command, "--request-id", prefix, check=False)
    assert again.stdout == loaded.stdout and hub.head() == head
