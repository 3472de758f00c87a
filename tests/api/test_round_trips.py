"""What is exported can be imported: every value comes back, and nothing changes."""

from __future__ import annotations

import csv
import io
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT, Reply, RunningHub, new_customer

TEXT = ("CSV", "NDJSON", "JSON")
DATASETS = ("customers", "contacts", "products", "orders", "interactions")
SAMPLES = Path(os.environ.get("PENSTOCK_SAMPLE_DATA") or ROOT.parent / "shared" / "data")
NAMES = SAMPLES / "multilingual" / "csv"
needs_names = pytest.mark.skipif(
    not NAMES.is_dir(), reason=f"there is no {NAMES}; PENSTOCK_SAMPLE_DATA says where"
)


def export(
    hub: RunningHub, dataset: str, name: str, consumer: str = "admin", **query: str
) -> bytes:
    plain = {"format": name}
    reply = hub.get(f"/v1/{dataset}:export", consumer, **plain, **query)
    assert reply.status == 200, reply.text
    return reply.body


def import_(
    hub: RunningHub, dataset: str, name: str, body: bytes, consumer: str = "admin"
) -> Reply:
    headers = {"content-type": "application/octet-stream"}
    path = f"/v1/{dataset}:import?format={name}"
    return hub.request("POST", path, consumer=consumer, body=body, headers=headers)


@pytest.fixture(scope="module")
def odd(hub: RunningHub) -> None:
    """Records whose values are hard on formats, in addition to the demo's."""
    text = ' "q", <&> \\ \r\n\t=1+1 ünï 𠮷 ' + "x" * 150
    long = text + "x" * 5000
    records = [
        new_customer(notes=long, name=text, tags=[text, ""], billingAddress={"city": text}),
        new_customer(notes="", phone="", email=None, creditLimit="0.0000", lifetimeValue="-0.5"),
        new_customer(name=" ", birthDate="0001-01-01", billingAddress={}),
        new_customer(name="NULL", notes="null", creditLimit="99999999999999.9999"),
    ]
    for record in records:
        reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert reply.status == 200, reply.text
    product = {
        "productId": records[0]["customerId"],
        "name": "Odd",
        "attributes": {"a\n": long, "": "empty", "k": ""},
        "weightKg": 0.1,
        "unitsInStock": "-9223372036854775808",
    }
    reply = hub.request("POST", "/v1/products", consumer="admin", json_body=product)
    assert reply.status == 200, reply.text


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("dataset", DATASETS)
def test_importing_an_export_changes_nothing(hub: RunningHub, dataset: str, name: str) -> None:
    body = export(hub, dataset, name)
    rows = len(export(hub, dataset, "NDJSON").splitlines())
    head = hub.head()
    reply = import_(hub, dataset, name, body)
    assert reply.status == 200, reply.text
    assert reply.json() == {"rowCount": str(rows), "unchangedCount": str(rows)}
    assert hub.head() == head
    assert export(hub, dataset, name) == body


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize("name", ["CSV", "NDJSON"])
def test_nor_does_importing_what_a_narrower_role_sees(hub: RunningHub, name: str) -> None:
    body = export(hub, "customers", name, "crm")
    everything, head = export(hub, "customers", "NDJSON"), hub.head()
    reply = import_(hub, "customers", name, body, "crm")
    assert reply.status == 200, reply.text
    assert reply.json().keys() == {"rowCount", "unchangedCount"}
    assert hub.head() == head
    assert export(hub, "customers", "NDJSON") == everything


def test_one_changed_row_is_one_change(hub: RunningHub) -> None:
    """Negative control: the log grows if a row differs."""
    lines = export(hub, "customers", "NDJSON").splitlines()
    record = json.loads(lines[5])
    record["notes"] = "changed by an import"
    lines[5] = json.dumps(record).encode()
    head = hub.head()
    reply = import_(hub, "customers", "NDJSON", b"\n".join(lines)).json()
    assert (reply["updatedCount"], reply["unchangedCount"]) == ("1", str(len(lines) - 1))
    assert hub.head() == head + 1


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The scalars of a record by the path of their names, without nulls."""
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for name, member in value.items():
            found |= leaves(member, f"{path}.{name}" if path else name)
        return found
    return {} if value is None else {path: value}


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def xml_records(body: bytes, lists: set[str]) -> list[dict[str, Any]]:
    """The records of an XML export in the form of proto JSON, scalars as text."""

    def value(element: ET.Element, name: str) -> Any:
        if name in lists:
            return [item.text or "" for item in element]
        if len(element):
            return {camel(e.tag): value(e, camel(e.tag)) for e in element}
        return element.text or ""

    return [value(record, "") for record in ET.fromstring(body)]


@pytest.mark.usefixtures("odd")
def test_all_formats_say_the_same(hub: RunningHub) -> None:
    by_json = [leaves(r) for r in json.loads(export(hub, "customers", "JSON"))]
    lines = export(hub, "customers", "NDJSON").splitlines()
    assert [leaves(json.loads(line)) for line in lines] == by_json
    as_text = [
        {k: str(v).lower() if isinstance(v, bool) else v for k, v in r.items()} for r in by_json
    ]
    by_xml = [leaves(r) for r in xml_records(export(hub, "customers", "XML"), {"tags"})]
    assert len(by_xml) == len(as_text)
    for found, wanted in zip(by_xml, as_text, strict=True):
        assert found == wanted
    text = export(hub, "customers", "CSV").decode()
    for row, wanted in zip(csv.DictReader(io.StringIO(text, newline="")), as_text, strict=True):
        given = {".".join(map(camel, k.split("."))): v for k, v in row.items()}
        tags = json.loads(given.pop("tags"))
        assert tags == wanted.pop("tags")
        assert {k: v for k, v in given.items() if v != ""} == {
            k: v for k, v in wanted.items() if v != ""
        }


@needs_names
def test_names_of_many_scripts_come_back_byte_for_byte(hub: RunningHub) -> None:
    pairs: list[tuple[str, str]] = []
    for source in ("forenames.csv", "surnames.csv"):
        with open(NAMES / source, encoding="utf-8", newline="") as file:
            pairs += [(r["localized_name"], r["romanized_name"]) for r in csv.DictReader(file)]
    assert sum(not name.isascii() for name, _ in pairs) > 1500
    # Contacts, because no other test depends on their number.
    records = [
        {"contactId": f"ml-{i:05}", "givenName": name, "familyName": roman, "source": "ml"}
        for i, (name, roman) in enumerate(pairs)
    ]
    body = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
    counts = import_(hub, "contacts", "NDJSON", body).json()
    assert counts == {"rowCount": str(len(pairs)), "createdCount": str(len(pairs))}
    query = {"filter": 'source = "ml"', "fields": "contact_id,given_name,family_name,source"}
    files = {name: export(hub, "contacts", name, **query) for name in (*TEXT, "XML")}
    found: dict[str, list[tuple[Any, Any]]] = {}
    rows = csv.DictReader(io.StringIO(files["CSV"].decode(), newline=""))
    found["CSV"] = [(row["given_name"], row["family_name"]) for row in rows]
    for name, document in {
        "NDJSON": [json.loads(line) for line in files["NDJSON"].splitlines()],
        "JSON": json.loads(files["JSON"]),
    }.items():
        found[name] = [(r["givenName"], r["familyName"]) for r in document]
    root = ET.fromstring(files["XML"])
    found["XML"] = [(r.findtext("given_name") or "", r.findtext("family_name") or "") for r in root]
    for name, values in found.items():
        assert values == pairs, name
        # The raw bytes: no format here needs to escape them.
        assert pairs[-1][0].encode() in files[name]
    for name in TEXT:
        again = import_(hub, "contacts", name, files[name]).json()
        assert again == {"rowCount": str(len(pairs)), "unchangedCount": str(len(pairs))}
    assert hub.get("/v1/contacts/ml-05000").json()["givenName"] == pairs[5000][0]


@needs_names
def test_names_are_created_and_found_as_they_are(hub: RunningHub) -> None:
    with open(NAMES / "surnames.csv", encoding="utf-8", newline="") as file:
        names = [r["localized_name"] for r in csv.DictReader(file)]
    for name in [n for n in names if not n.isascii()][::150]:
        record = new_customer(name=name)
        created = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert created.json()["name"] == name
        found = hub.get("/v1/customers", filter=f'name = "{name}"', fields="name").json()
        assert found["customers"][0] == {"name": name}
