"""The options of an import that describe its file, through REST, gRPC and the command line."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import Reply, RunningHub, new_customer
from narrowing import narrowed
from penstock.client import Client
from penstockd.formats import READERS


def import_(hub: RunningHub, data: bytes, consumer: str = "admin", **query: str) -> Reply:
    path = "/v1/customers:import"
    given = {"format": "csv", **query}
    return hub.request("POST", path, consumer=consumer, body=data, query=given)


def stored(hub: RunningHub, key: str, *fields: str) -> dict[str, object]:
    record = hub.get(f"/v1/customers/{key}").json()
    return {f: record.get(f) for f in fields}


@pytest.mark.parametrize(
    ("delimiter", "said"),
    [(";", ""), (";", ";"), ("\t", ""), ("\t", "\t"), ("|", "|"), ("|", "pipe"), (",", "COMMA")],
)
def test_delimiters_over_rest(hub: RunningHub, delimiter: str, said: str) -> None:
    key = new_customer()["customerId"]
    lines = [["customer_id", "name", "notes"], [key, '"One, two; three|"', '"a ""b"""']]
    data = "\n".join(map(delimiter.join, lines)).encode()
    reply = import_(hub, data, **({"delimiter": said} if said else {}))
    assert reply.status == 200 and reply.json()["createdCount"] == "1", reply.text
    wanted = {"name": "One, two; three|", "notes": 'a "b"'}
    assert stored(hub, key, "name", "notes") == wanted


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"delimiter": "::"}, "delimiter"),
        ({"delimiter": ";", "format": "ndjson"}, "delimiter"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
    ],
)
def test_options_that_are_not_understood_are_named(
    hub: RunningHub, unchanged: None, query: dict[str, str], field: str
) -> None:
    reply = import_(hub, b"customer_id,name\nx,y\n", **query)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert list(reply.violations()) == [field]


def test_a_time_zone_over_rest_and_by_command(spare: RunningHub, tmp_path: Path) -> None:
    key, occurs = spare.sql("SELECT interaction_id, occur_time FROM data.interactions LIMIT 1")[0]
    path, query = "/v1/interactions:import", {"format": "csv"}
    data = f"interaction_id,occur_time\n{key},2024-07-01 12:00:00\n"

    def load(**more: str) -> Reply:
        given = query | more
        return spare.request("POST", path, consumer="admin", body=data.encode(), query=given)

    def occur_time() -> datetime:
        where = "WHERE interaction_id = $1"
        found = spare.sql(f"SELECT occur_time FROM data.interactions {where}", key)[0][0]
        assert isinstance(found, datetime)
        return found

    refused = load()
    assert (refused.status, refused.reason) == (400, "IMPORT_ROW_INVALID")
    assert occur_time() == occurs
    reply = load(time_zone="Europe/Berlin")
    assert reply.status == 200, reply.text
    assert occur_time() == datetime(2024, 7, 1, 10, tzinfo=UTC)
    file = tmp_path / "interactions.csv"
    file.write_text(data.replace("07-01", "01-01"))
    spare.command("import", "interactions", str(file), "--time-zone", "America/New_York")
    assert occur_time() == datetime(2024, 1, 1, 17, tzinfo=UTC)
    # The refusal names the row and the reason.
    file.write_text(data.replace("07-01 12", "03-31 02"))
    arguments = ("import", "interactions", str(file), "--time-zone", "Europe/Berlin")
    failed = spare.command(*arguments, check=False)
    assert failed.returncode == 1 and b"clocks" in failed.stderr


#: For each format a file of two records with a member that no field has, named {name}.
FILES = {
    "csv": "customer_id,{name},name\n{key},x,One\n{key}-2,,Two\n",
    "ndjson": '{{"customerId":"{key}","{name}":"x","name":"One"}}\n'
    '{{"customerId":"{key}-2","{name}":"","name":"Two"}}\n',
    "json": '[{{"customerId":"{key}","{name}":"x","name":"One"}},'
    '{{"customerId":"{key}-2","{name}":"","name":"Two"}}]',
    "xml": "<customers><customer><customer_id>{key}</customer_id><{name}>x</{name}>"
    "<name>One</name></customer><customer><customer_id>{key}-2</customer_id><{name}/>"
    "<name>Two</name></customer></customers>",
}


@pytest.mark.parametrize("format", FILES)
def test_a_hidden_name_is_ignored_as_an_unknown_one_is(hub: RunningHub, format: str) -> None:
    with narrowed(hub, field_masks=json.dumps({"notes": "hide"})):
        found = []
        for name in ("notes", "stone"):
            key = new_customer()["customerId"]
            data = FILES[format].format(key=key, name=name).encode()
            refused = import_(hub, data, "crm", format=format)
            reply = import_(hub, data, "crm", format=format, ignore_unknown="true")
            assert refused.status == 400 and name in refused.text
            assert reply.status == 200, reply.text
            found.append(
                [
                    (r.status, r.reason if r.status != 200 else "", r.text.replace(name, "it"))
                    for r in (refused, reply)
                ]
            )
            assert reply.json()["ignoredNames"] == [{"name": name, "valueCount": "2"}]
            assert reply.json()["ignoredValueCount"] == "2"
    hidden, unknown = ([body.split('"requestId"')[0] for _, _, body in f] for f in found)
    assert hidden == unknown
    row = hub.sql("SELECT notes FROM data.customers WHERE customer_id LIKE $1", f"{key}%")
    assert row == [(None,), (None,)]


def test_options_of_the_sdk_and_the_command(hub: RunningHub, tmp_path: Path) -> None:
    key = new_customer()["customerId"]
    data = f"customer_id;stone;name\n{key};x;One\n".encode()
    with Client(hub.url, api_key=hub.api_key) as client:
        counts = client.dataset("customers").import_(
            data, "CSV", delimiter="semicolon", ignore_unknown=True
        )
    assert (counts.created, dict(counts.ignored)) == (1, {"stone": 1})
    file = tmp_path / "customers.csv"
    file.write_bytes(data)
    done = hub.command("import", "customers", str(file), "--delimiter", ";", "--ignore-unknown")
    assert b"ignored: stone (1 values)" in done.stderr
    assert b"1 unchanged" in done.stdout


def test_a_repeated_import_reports_what_it_ignored(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    data = f"customer_id,stone,name\n{key},x,One\n".encode()
    query = {"ignore_unknown": "true", "request_id": key}
    first = import_(hub, data, **query)
    again = import_(hub, data, **query)
    assert again.headers.get("penstock-replayed") == "true"
    assert again.json() == first.json() and again.json()["ignoredNames"]


# --- previews ---

#: Files of two records; the credit limit of the second is not a number.
PREVIEWED = {
    "csv": "customer_id;name;creditLimit;stone\n{key};n;12.50;x\n{key}-2;n;much;y\n",
    "ndjson": '{{"customerId":"{key}","name":"n","stone":"x","creditLimit":"12.50"}}\n'
    '{{"customerId":"{key}-2","name":"n","stone":"y","creditLimit":"much"}}\n',
    "json": '[{{"customerId":"{key}","name":"n","stone":"x","credit_limit":"12.50"}},'
    '{{"customerId":"{key}-2","name":"n","stone":"y","credit_limit":"much"}}]',
    "xml": "<customers><customer><customer_id>{key}</customer_id><name>n</name><stone>x</stone>"
    "<credit_limit>12.50</credit_limit></customer><customer><customer_id>{key}-2</customer_id>"
    "<name>n</name><stone>y</stone><credit_limit>much</credit_limit></customer></customers>",
}


def columnar(name: str, key: str) -> bytes:
    """The same in a format that is not text."""
    values = {
        "customer_id": [key, f"{key}-2"],
        "name": ["n", "n"],
        "creditLimit": ["12.50", "much"],
        "stone": ["x", "y"],
    }
    table, output = pa.table(values), io.BytesIO()
    if name == "xlsx":
        book = openpyxl.Workbook()
        for row in (list(values), *zip(*values.values(), strict=True)):
            book.active.append(row)
        book.save(output)
    elif name == "parquet":
        pq.write_table(table, output)
    else:
        with pa.ipc.new_stream(output, table.schema) as stream:
            stream.write_table(table)
    return output.getvalue()


@pytest.mark.parametrize("format", [n.lower() for n in READERS])
def test_a_preview_shows_what_an_import_would_do(
    hub: RunningHub, unchanged: None, format: str
) -> None:
    key = new_customer()["customerId"]
    if format in PREVIEWED:
        data = PREVIEWED[format].format(key=key).encode()
    else:
        data = columnar(format, key)
    reply = import_(hub, data, format=format, preview="true")
    assert reply.status == 200, reply.text
    found = reply.json()
    columns = {c.get("field", ""): c for c in found["columns"]}
    limit = columns["credit_limit"]
    header = format in ("csv", "parquet", "arrow", "xlsx")
    assert limit["name"] == ("creditLimit" if header else "credit_limit")
    assert (limit["type"], limit["refusedCount"]) == ("decimal(18, 4)", "1")
    # A row that is refused for one of its values shows none.
    assert (limit["values"], columns["customer_id"]["values"]) == (["12.50"], [key])
    stone = columns[""]
    assert stone["name"] == "stone" and "refused, unless ignore_unknown" in stone["note"]
    assert stone["refusedCount"] == "2"
    assert (found["rowCount"], found["createdCount"], found["refusedCount"]) == ("2", "1", "1")
    (error,) = found["rowErrors"]
    assert (error["row"], error["field"]) == ("2", "credit_limit")
    lenient = import_(hub, data, format=format, preview="true", ignore_unknown="true").json()
    notes = [c.get("note", "") for c in lenient["columns"] if c["name"] == "stone"]
    assert notes == ["is not a field of the dataset, and ignored"]


def test_a_preview_by_command(hub: RunningHub, unchanged: None, tmp_path: Path) -> None:
    key = new_customer()["customerId"]
    file = tmp_path / "customers.csv"
    file.write_text(f"customer_id\tname\tetag\n{key}\tOne\t\n")
    done = hub.command("import", "customers", str(file), "--preview").stdout.decode()
    lines = [line.split("\t") for line in done.splitlines()]
    assert lines[0] == ["column", "field", "type", "values", "refused", "note"]
    assert lines[1][:5] == ["customer_id", "customer_id", "string", key, "0"]
    assert lines[3][1] == "etag" and "written by the hub" in lines[3][5]
    file.write_text(PREVIEWED["csv"].format(key=key))
    failed = hub.command(
        *("import", "customers", str(file), "--preview", "--report", "json"), check=False
    )
    assert failed.returncode == 1 and b"1 bad row; the others were checked" in failed.stderr
    shown = json.loads(failed.stdout)
    assert [c["column"] for c in shown] == ["customer_id", "name", "creditLimit", "stone"]
    assert shown[2]["refused"] == 1
