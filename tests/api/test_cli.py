"""The command line against a running hub."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from harness import RunningHub, new_customer


def output(hub: RunningHub, *arguments: str, **more: Any) -> str:
    return hub.command(*arguments, **more).stdout.decode()


def test_a_token_works_over_http(hub: RunningHub) -> None:
    token = output(hub, "token", "--as", "bi").strip()
    headers = {"authorization": f"Bearer {token}"}
    reply = hub.request(
        "GET", "/v1/customers?page_size=1&fields=email&filter=email:*", headers=headers
    )
    assert "***@" in reply.json()["customers"][0]["email"]


def test_datasets_and_their_fields(hub: RunningHub) -> None:
    fields = output(hub, "datasets", "--as", "bi", "--fields")
    assert "customers\temail" in fields and "customers\tphone" not in fields
    assert "products\tname" in fields and "customers\ttax_id" not in fields


def test_records_from_the_command_line(hub: RunningHub) -> None:
    record = new_customer(name="Ünïcode 山", notes="n")
    key = record["customerId"]
    created = json.loads(output(hub, "create", "customers", "--data", json.dumps(record)))
    assert created["name"] == "Ünïcode 山"
    change = json.dumps({"notes": None, "billingAddress": {"city": "Ulm"}}).encode()
    updated = json.loads(
        output(hub, "update", "customers", key, "--etag", created["etag"], input=change)
    )
    assert updated.get("notes") is None and updated["billing_address"]["city"] == "Ulm"
    got = json.loads(output(hub, "get", "customers", key, "--fields", "name,billing_address.city"))
    assert got == {"name": "Ünïcode 山", "billing_address": {"city": "Ulm"}}
    stale = hub.command("delete", "customers", key, "--etag", created["etag"], check=False)
    assert stale.returncode == 1 and b"changed since it was read" in stale.stderr
    output(hub, "delete", "customers", key)
    gone = hub.command("get", "customers", key, check=False)
    assert gone.returncode == 1
    assert gone.stderr.decode().startswith("error: ") and b"Traceback" not in gone.stderr


def test_lists_from_the_command_line(hub: RunningHub) -> None:
    lines = output(
        hub, "list", "customers", "--filter", "kind = COMPANY", "--order-by", "name desc",
        "--fields", "customer_id,name", "--limit", "5", "--page-size", "2", "--format", "ndjson",
    ).splitlines()  # fmt: skip
    by_rest = hub.get(
        "/v1/customers",
        filter="kind = COMPANY",
        order_by="name desc",
        fields="customer_id,name",
        page_size=5,
    )
    found = by_rest.json()["customers"]
    assert [json.loads(line) for line in lines] == [
        {"customer_id": c["customerId"], "name": c["name"]} for c in found
    ]
    table = output(hub, "list", "customers", "--filter", 'customer_id = "c00000001"')
    assert "c00000001" in table and "Patricia Smith" in table


@pytest.mark.parametrize("suffix", ["csv", "json", "ndjson", "xml"])
def test_exports_to_a_file_of_any_format(hub: RunningHub, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"customers.{suffix}"
    done = hub.command("export", "customers", "--as", "crm", "-o", str(target))
    plain = {"format": suffix}
    expected = hub.get("/v1/customers:export", "crm", **plain).body
    assert target.read_bytes() == expected
    assert f"{len(expected):,} bytes".encode() in done.stderr
    assert list(tmp_path.iterdir()) == [target]


def test_an_export_that_fails_leaves_no_file(hub: RunningHub, tmp_path: Path) -> None:
    target = tmp_path / "customers.csv"
    done = hub.command(
        "export", "customers", "--as", "crm", "--filter", "tax_id:*", "-o", str(target), check=False
    )
    assert done.returncode == 1
    assert b"unknown field 'tax_id'" in done.stderr
    assert not target.exists()


def test_an_import_says_what_became_of_its_rows(hub: RunningHub, tmp_path: Path) -> None:
    records = [new_customer(notes=f"line\n{i}") for i in range(3)]
    table = tmp_path / "customers.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "customer_id", "notes"])
        writer.writerows([[r["name"], r["customerId"], r["notes"]] for r in records])
    document = tmp_path / "customers.json"
    document.write_text(json.dumps([*records, new_customer()]))
    lines = "\n".join(map(json.dumps, records)).encode()
    first = output(hub, "import", "customers", str(table))
    assert "3 rows: 3 created, 0 updated, 0 unchanged" in first
    second = output(hub, "import", "customers", str(document))
    assert "4 rows: 1 created, 0 updated, 3 unchanged" in second
    third = output(hub, "import", "customers", "-", "--format", "ndjson", input=lines)
    assert "3 rows: 0 created, 0 updated, 3 unchanged" in third
    for record in records:
        assert hub.get(f"/v1/customers/{record['customerId']}").json()["notes"] == record["notes"]


def test_bad_rows_are_shown_and_nothing_is_loaded(hub: RunningHub, tmp_path: Path) -> None:
    key = new_customer()["customerId"]
    source = tmp_path / "customers.csv"
    rows = ["customer_id,name,credit_limit,birth_date", f"{key}-1,Fine,1.5,2000-01-01"]
    rows += [f"{key}-2,Bad,one,2000-01-01", f"{key}-3,Bad,1,2000-02-30"]
    source.write_text("\n".join(rows) + "\n")
    done = hub.command("import", "customers", str(source), check=False)
    assert done.returncode == 1
    shown = done.stderr.decode()
    assert "credit_limit" in shown and "birth_date" in shown
    assert "2 bad rows; nothing was loaded" in shown
    assert hub.get(f"/v1/customers/{key}-1").status == 404


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("list", "customers", "--filter", "name ="), 1, "character"),
        (("export", "customers", "--format", "yaml"), 1, "CSV"),
        (("list", "customers", "--format", "xml"), 2, "table, json, csv, yaml"),
        (("list", "customers", "--nothing"), 2, "--nothing"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(
    hub: RunningHub, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = hub.command(*arguments, check=False)
    assert done.returncode == code
    assert text in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_hub_that_is_not_there(hub: RunningHub) -> None:
    done = hub.command("list", "customers", "--url", "http://127.0.0.1:9", check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and done.stderr.startswith(b"error: ")
