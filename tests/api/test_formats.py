"""Formats through the hub: each is named and comes back unchanged, compressed or not."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from harness import Reply, RunningHub, new_customer
from penstockd import formats

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "GZIP": gzip.decompress,
    "ZSTD": zstd.decompress,
}
SUFFIXES = {"": "", "GZIP": ".gz", "ZSTD": ".zst"}
TYPES = {"GZIP": "application/gzip", "ZSTD": "application/zstd"}


def export(hub: RunningHub, format: str, dataset: str = "customers", **query: object) -> Reply:
    query["format"] = format
    reply = hub.request("GET", f"/v1/{dataset}:export", consumer="admin", query=query)
    assert reply.status == 200, reply.text
    return reply


def import_(hub: RunningHub, path: str, body: bytes, **headers: str) -> Reply:
    sent = {"content-type": "application/octet-stream"}
    sent |= {k.replace("_", "-"): v for k, v in headers.items()}
    return hub.request("POST", path, consumer="admin", body=body, headers=sent)


@pytest.fixture(scope="module", autouse=True)
def odd(hub: RunningHub) -> None:
    """A record that is hard on formats, in addition to the demo's."""
    text = ' "q", <&> ]]> \\ \r\n\t=1+1 _x000D_ ünï 𠮷 '
    record = new_customer(notes=text, name="=1+1", tags=[text, ""], billingAddress={"city": ""})
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text


@pytest.mark.parametrize("compression", list(PLAIN))
@pytest.mark.parametrize("format", list(formats.READERS))
def test_importing_an_export_changes_nothing(
    hub: RunningHub, format: str, compression: str
) -> None:
    reply = export(hub, format, compression=compression)
    plain = export(hub, format)
    rows = len(export(hub, "CSV", fields="customer_id").body.splitlines()) - 1
    head = hub.head()
    path = f"/v1/customers:import?format={format}"
    sent = {"content_encoding": compression.lower()} if compression else {}
    for done in (
        import_(hub, f"{path}&compression={compression.lower()}", reply.body),
        import_(hub, path, reply.body),
        import_(hub, path, reply.body, **sent),
    ):
        assert done.json() == {"rowCount": str(rows), "unchangedCount": str(rows)}, done.text
    assert hub.head() == head
    assert len(PLAIN[compression](reply.body)) >= len(plain.body) // 2


@pytest.mark.parametrize("compression", list(PLAIN))
@pytest.mark.parametrize("format", list(formats.WRITERS))
def test_files_have_a_name_and_a_type(hub: RunningHub, format: str, compression: str) -> None:
    reply = export(hub, format, compression=compression, limit=3)
    writer = formats.WRITERS[format]
    name = f"customers{writer.suffix}{SUFFIXES[compression]}"
    assert reply.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert reply.headers["content-type"] == TYPES.get(compression, writer.content_type)
    assert "content-encoding" not in reply.headers


def test_a_page_has_a_name_too(hub: RunningHub) -> None:
    page = hub.get("/v1/customers:exportPage", format="CSV", page_size=2)
    assert page.headers["content-disposition"] == 'attachment; filename="customers.csv"'


@pytest.mark.parametrize(("query", "reason"), [
    ("format=PDF", "FORMAT_UNKNOWN"),
    ("format=CSV&compression=rar", "VALUE_INVALID"),
    ("format=JSON&spreadsheet_safe=true", "VALUE_INVALID"),
])  # fmt: skip
def test_what_cannot_be_had_is_refused(hub: RunningHub, query: str, reason: str) -> None:
    reply = hub.get(f"/v1/customers:export?{query}")
    assert (reply.status, reply.reason) == (400, reason)


def test_what_cannot_be_read_is_refused(hub: RunningHub) -> None:
    reply = import_(hub, "/v1/customers:import?format=XLSX", b"PK")
    assert (reply.status, reply.reason) == (400, "IMPORT_FORMAT_INVALID")
    reply = import_(hub, "/v1/customers:import?format=CSV&compression=ZIP", b"PK")
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    reply = import_(hub, "/v1/customers:import?format=CSV&compression=GZIP", b"customer_id\nx\n")
    assert (reply.status, reply.reason) == (400, "IMPORT_FORMAT_INVALID")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("format", ["CSV", "NDJSON", "JSON", "XML", "PARQUET"])
def test_the_wire_is_compressed_for_who_asks(hub: RunningHub, format: str, encoding: str) -> None:
    """A content encoding affects only the transfer: the file, its name and type stay the same."""
    path = f"/v1/customers:export?format={format}"
    reply = hub.request("GET", path, consumer="admin", headers={"accept-encoding": encoding})
    assert reply.headers["content-type"] == formats.WRITERS[format].content_type
    packed = format != "PARQUET"  # Parquet is compressed inside
    assert reply.headers.get("content-encoding") == (encoding if packed else None)
    plain = export(hub, format).body
    found = PLAIN[{"gzip": "GZIP", "zstd": "ZSTD"}[encoding]](reply.body) if packed else reply.body
    # Only their receipts distinguish the demo's exports.
    assert len(found.splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize("path", ["/v1/customers:export", "/v1/customers:exportPage"])
def test_spreadsheet_safe_csv(hub: RunningHub, path: str) -> None:
    query: dict[str, object] = {
        "format": "CSV",
        "filter": 'name = "=1+1"',
        "fields": "name,credit_limit",
    }
    raw = hub.request("GET", path, consumer="admin", query=query).text
    query["spreadsheet_safe"] = "true"
    safe = hub.request("GET", path, consumer="admin", query=query).body.decode("utf-8-sig")
    assert next(csv.DictReader(io.StringIO(raw)))["name"] == "=1+1"
    assert next(csv.DictReader(io.StringIO(safe)))["name"] == "'=1+1"


@pytest.mark.parametrize("consumer", ["admin", "crm", "bi"])
def test_xml_fits_the_schema_of_its_dataset(hub: RunningHub, consumer: str) -> None:
    listed = hub.get("/v1/datasets", consumer).json()["datasets"]
    assert listed
    for dataset in listed:
        if "READ" not in [a.upper() for a in dataset["actions"]]:
            continue
        name = dataset["name"]
        reply = hub.get(f"/v1/datasets/{name}/schema.xsd", consumer)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/xml")
        schema = etree.XMLSchema(etree.fromstring(reply.body))
        document = etree.fromstring(hub.get(f"/v1/{name}:export", consumer, format="XML").body)
        schema.assertValid(document)
        etree.SubElement(document[0], "nothing")
        assert not schema.validate(document)
        paths = {f["path"].split(".")[-1] for f in dataset["fields"]}
        elements = {e.get("name") for e in etree.fromstring(reply.body).iter("{*}element")}
        assert paths <= elements


def test_a_schema_hides_what_its_caller_may_not_see(hub: RunningHub) -> None:
    schemas = {
        who: hub.get("/v1/datasets/customers/schema.xsd", who).text for who in ("admin", "bi")
    }
    shown = {
        f["path"]
        for d in hub.get("/v1/datasets", "bi").json()["datasets"] if d["name"] == "customers"
        for f in d["fields"]
    }  # fmt: skip
    assert '"tax_id"' in schemas["admin"]
    assert ('"tax_id"' in schemas["bi"]) == ("tax_id" in shown)
    assert len(schemas["bi"]) < len(schemas["admin"])


def test_a_schema_of_nothing_is_denied(hub: RunningHub) -> None:
    for name in ("nothing", "hub.receipt", os.sep.join("ab")):
        reply = hub.get(f"/v1/datasets/{name}/schema.xsd")
        assert reply.status in (403, 404), reply.text


@pytest.mark.parametrize(
    "name", ["c.csv", "c.csv.gz", "c.ndjson.zst", "c.xml", "c.xml.gz", "c.parquet", "c.arrow"]
)
def test_the_command_line_goes_by_the_name(hub: RunningHub, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    hub.command("export", "contacts", "--output", str(file))
    done = hub.command("import", "contacts", str(file))
    text = (done.stdout + done.stderr).decode()
    assert "0 created, 0 updated" in text and not text.startswith("contacts: 0 rows")
    magic = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}.get(file.suffix)
    assert magic is None or file.read_bytes().startswith(magic)


def test_the_command_line_disarms_and_makes_sheets(hub: RunningHub, tmp_path: Path) -> None:
    options = ["--filter", 'name = "=1+1"', "--fields", "name", "--spreadsheet-safe"]
    done = hub.command("export", "customers", *options, "--compression", "gzip")
    assert b"'=1+1" in gzip.decompress(done.stdout)
    sheet = tmp_path / "c.xlsx"
    hub.command("export", "customers", "-o", str(sheet))
    assert sheet.read_bytes().startswith(b"PK")
    again = hub.command("import", "customers", str(sheet)).stdout
    assert b"0 created, 0 updated" in again


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"notes": "a" * 32_768}, "notes"),
        ({"notes": "𠮷" * 16_384}, "notes"),  # two units of UTF-16 each
        ({"notes": "é" * 32_767}, ""),
        ({"notes": "𠮷" * 16_383}, ""),
    ],
)
@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_text_that_is_too_long_for_a_sheet_is_refused_at_once(
    hub: RunningHub, record: dict[str, object], field: str, compression: str
) -> None:
    made = new_customer(**record)
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=made)
    assert reply.status == 200, reply.text
    query = {"format": "XLSX", "filter": f'customer_id = "{made["customerId"]}"'}
    query["compression"] = compression
    reply = hub.get("/v1/customers:export", **query)
    if not field:
        assert reply.status == 200, reply.text
        return
    # The hub answers with a status, not with a file that breaks off.
    assert (reply.status, reply.reason) == (400, "REQUEST_TOO_LARGE")
    assert f"the value of '{field}' of the record '{made['customerId']}'" in reply.text
    assert hub.get("/v1/customers:export", **query, fields="customer_id,name").status == 200
