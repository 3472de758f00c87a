"""Uploads as forms: what curl's -F and browsers send."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Reply, RunningHub, new_customer

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
#: A part: its name, the file's name or None, its content type, its content.
Part = tuple[str, str | None, str, bytes]


def form(*parts: Part, end: bool = True) -> bytes:
    body = b""
    for name, file_name, content_type, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
        head += "" if file_name is None else f'; filename="{file_name}"'
        head += f"\r\nContent-Type: {content_type}" if content_type else ""
        body += f"{head}\r\n\r\n".encode() + content + b"\r\n"
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def post(hub: RunningHub, body: bytes | Iterator[bytes], **query: str) -> Reply:
    return hub.request(
        "POST",
        "/v1/customers:import",
        consumer="admin",
        body=body,
        query=query,
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )


def file(name: str, content: bytes, content_type: str = "application/octet-stream") -> Part:
    return ("file", name, content_type, content)


def field(name: str, text: str) -> Part:
    return (name, None, "", text.encode())


def row(key: str) -> bytes:
    return f"customer_id,name\n{key},Form\n".encode()


def test_a_file_is_named_by_its_name_or_its_type(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    record = b'{"customerId":"%s","name":"Form"}' % key.encode()
    forms = [
        file("x.csv", row(key), "application/vnd.ms-excel"),  # as a browser beside a spreadsheet
        file("X.CSV.gz", gzip.compress(row(key)), "application/gzip"),
        file("blob", row(key), "text/csv; charset=utf-8"),
        file("x.ndjson", record),
        file("C:\\data\\x.json", b"[" + record + b"]"),
    ]
    for i, part in enumerate(forms):
        reply = post(hub, form(part))
        assert reply.status == 200, (part, reply.text)
        expected = "createdCount" if i == 0 else "unchangedCount"
        assert reply.json() == {"rowCount": "1", expected: "1"} or i >= 3
    assert hub.get(f"/v1/customers/{key}").json()["name"] == "Form"


def test_fields_mean_what_query_parameters_mean(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    data = f"customer_id|stone|name\n{key}|x|Form\n".encode()
    fields = [
        field("format", "csv"),
        field("delimiter", "|"),
        field("ignoreUnknown", "true"),
        field("complete.byte_count", str(len(data))),
        field("request_id", key),
        ("nothing", "", "application/octet-stream", b""),  # no file was chosen here
    ]
    reply = post(hub, form(*fields, file("data", data)), format="csv")
    assert reply.status == 200, reply.text
    assert reply.json()["createdCount"] == "1"
    assert reply.json()["ignoredNames"] == [{"name": "stone", "valueCount": "1"}]
    again = post(hub, form(*fields, file("data", data)))
    assert again.headers.get("penstock-replayed") == "true"
    assert again.json() == reply.json()
    wrong = [field("complete.byte_count", str(len(data) + 1)), file("x.csv", row(key))]
    assert post(hub, form(*wrong)).reason == "IMPORT_TRUNCATED"


KEY = "never-written"
#: Forms that are refused: their parts, the query, the reason, what is said.
REFUSED: list[tuple[list[Part], dict[str, str], str, str]] = [
    ([], {}, "IMPORT_FORMAT_INVALID", "the form"),
    ([field("format", "csv")], {}, "IMPORT_FORMAT_INVALID", "has no file"),
    ([file("x", row(KEY))], {}, "VALUE_INVALID", "format is not shown by the file's name 'x'"),
    ([field("formt", "csv"), file("x", row(KEY))], {}, "VALUE_INVALID", "formt of the form"),
    ([field("file", "x"), file("x.csv", row(KEY))], {}, "VALUE_INVALID", "file of the form"),
    ([field("partial", "maybe"), file("x.csv", row(KEY))], {}, "VALUE_INVALID", "partial of the"),
    ([field("format", "xml"), file("x.csv", row(KEY))], {"format": "csv"}, "VALUE_INVALID",
     "format is given twice"),
    ([field("format", "csv"), field("format", "csv"), file("x.csv", row(KEY))], {},
     "VALUE_INVALID", "format is given twice by the form"),
    ([file("x.csv", row(KEY)), field("format", "csv")], {}, "VALUE_INVALID",
     "format stands after the file"),
    ([file("x.csv", row(KEY)), file("y.csv", row(KEY))], {}, "IMPORT_FORMAT_INVALID",
     "more than one file"),
    ([field("format", "x" * 70_000), file("x.csv", row(KEY))], {}, "IMPORT_FORMAT_INVALID",
     "exceed 64 KiB"),
    ([*(field(f"f{i}", "") for i in range(40)), file("x.csv", row(KEY))], {},
     "IMPORT_FORMAT_INVALID", "more than 32 fields"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "query", "reason", "said"), REFUSED)
def test_what_is_not_understood_is_refused(
    hub: RunningHub,
    unchanged: None,
    parts: list[Part],
    query: dict[str, str],
    reason: str,
    said: str,
) -> None:
    reply = post(hub, form(*parts), **query)
    assert (reply.status, reply.reason) == (400, reason), reply.text
    assert said in reply.text


def test_a_form_that_breaks_off_loads_nothing(hub: RunningHub, unchanged: None) -> None:
    whole = form(file("x.csv", row(KEY)))
    for body in (whole[:-6], form(file("x.csv", row(KEY)), end=False), whole[:60]):
        assert post(hub, body).reason == "IMPORT_TRUNCATED"


def test_a_form_may_be_large_and_come_in_pieces(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    lines = [f"{key}-{i},{'n' * 400}\n".encode() for i in range(8000)]
    body = form(
        field("validate_only", "true"), file("x.csv", b"customer_id,name\n" + b"".join(lines))
    )
    assert len(body) > 3 << 20

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 99_991):
            yield body[at : at + 99_991]

    reply = post(hub, pieces())
    assert reply.status == 200, reply.text
    assert reply.json()["createdCount"] == "8000"


def test_curl_sends_a_form(hub: RunningHub, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is needed: the guide uses it"
    key = new_customer()["customerId"]
    path = tmp_path / "customers.csv"
    path.write_bytes(row(key).replace(b",", b";"))
    done = subprocess.run(
        [
            *(curl, "-sS", "-H", f"authorization: Bearer {hub.token('admin')}"),
            *("-F", "partial=true", "-F", f"file=@{path}", f"{hub.url}/v1/customers:import"),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert b'"createdCount":"1"' in done.stdout.replace(b" ", b""), done.stdout
