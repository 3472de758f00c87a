"""What holds for every REST call: paths, parameters, errors, request ids, formats."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
from typing import Any

import pytest

from harness import PATIENCE, ROOT, Reply, RunningHub, eventually, new_customer, read_log

FORMATS = {
    "CSV": "text/csv",
    "JSON": "application/json",
    "NDJSON": "application/x-ndjson",
    "XML": "application/xml",
}


def test_the_hub_is_healthy(hub: RunningHub) -> None:
    reply = hub.request("GET", "/healthz")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "near"),
    [
        ("POST", "/", ""),
        ("GET", "/nothing", ""),
        ("GET", "/v1/nothing", ""),
        ("GET", "/v2/customers", "/v1/customers"),
        ("GET", "/v1/customers/c00000001/orders", ""),
        ("GET", "/v1/customers:exportt", "/v1/customers:export"),
        ("GET", "/v1/customers/", "/v1/customers"),
    ],
)
def test_an_unknown_path_is_not_found(hub: RunningHub, method: str, path: str, near: str) -> None:
    reply = hub.request(method, path, consumer="admin")
    assert (reply.status, reply.reason, reply.json()["code"]) == (404, "METHOD_UNKNOWN", 5)
    hint = f"; did you mean {near}?" if near else ""
    assert reply.json()["message"] == f"no such method and path{hint}"


def test_who_is_not_known_learns_of_no_paths(hub: RunningHub) -> None:
    for method, path in [("GET", "/v1/nothing"), ("PUT", "/v1/customers"), ("OPTIONS", "/v1/x")]:
        reply = hub.request(method, path)
        assert (reply.status, reply.reason) == (401, "UNAUTHENTICATED"), path
        assert "allow" not in reply.headers


def test_paths_that_a_caller_may_not_see_are_not_suggested(hub: RunningHub) -> None:
    hint = "; did you mean /v1/products:export?"
    assert hub.get("/v1/products:exportt").json()["message"].endswith(hint)
    assert "products" not in hub.get("/v1/products:exportt", "crm").json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/customers/c00000001", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("PUT", "/v1/customers/c00000001", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("DELETE", "/v1/customers", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/v1/customers:batchUpsert", "OPTIONS, POST"),
        ("HEAD", "/v1/customers:batchUpsert", "OPTIONS, POST"),
        ("POST", "/v1/customers:export", "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/customers:import", "OPTIONS, POST"),
        ("GET", "/oauth2/token", "OPTIONS, POST"),
    ],
)
def test_a_wrong_verb_is_told_the_right_ones(
    hub: RunningHub, method: str, path: str, allow: str
) -> None:
    reply = hub.request(method, path, consumer="admin")
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert reply.reason == "METHOD_NOT_ALLOWED"
    options = hub.request("OPTIONS", path, consumer="admin")
    assert (options.status, options.headers["allow"], options.body) == (200, allow, b"")


def test_how_a_status_is_told_is_not_shown(hub: RunningHub) -> None:
    path, tag = "/v1/customers/c00000001", hub.get("/v1/customers/c00000001").headers["etag"]
    for status, at, headers in [
        (406, path, {"accept": "application/jsonl"}),
        (406, path, {"accept": "text/csv;q=0.3"}),
        (304, path, {"if-none-match": tag}),
        (412, "/v1/customers/absent", {"if-match": tag}),
        (405, "/v1/customers:import", {}),
        (405, "/oauth2/token", {}),
    ]:
        for verb in ("GET", "HEAD"):
            reply = hub.request(verb, at, consumer="admin", headers=headers)
            assert (reply.status, "x-http-status" in reply.headers) == (status, False), at


def test_errors_on_the_paths_of_streams_have_their_status(hub: RunningHub) -> None:
    for verb, path, consumer, status in [
        ("POST", "/v1/customers:export", None, 401),
        ("GET", "/v1/customers:export", None, 401),
        ("GET", "/v1/nosuch:watch", "admin", 404),
        ("GET", "/v1/nosuch:watch", None, 401),
        ("GET", "/v1/customers/a:watch", "admin", 404),
        ("GET", "/v1/access/revisions/99999999999999999999", "admin", 400),
    ]:
        reply = hub.request(verb, path, consumer=consumer)
        assert reply.status == status, (verb, path, reply.text)


def test_head_tells_nothing_of_records(hub: RunningHub) -> None:
    path = "/v1/customers:exportPage?page_size=1&format=CSV"
    told = hub.request("HEAD", path, consumer="admin").headers
    assert not [name for name in told if name.startswith("penstock-receipt")]
    control = hub.get(path).headers
    assert "penstock-receipt-sha256" in control


def test_head_has_no_body(hub: RunningHub) -> None:
    for path in (
        "/v1/customers",
        "/v1/customers/c00000001",
        "/v1/customers:export",
        "/v1/webhooks",
    ):
        reply = hub.request("HEAD", path, consumer="admin")
        assert (reply.status, reply.body) == (200, b""), path
    for path, status in [("/v1/customers/absent", 404), ("/v1/customers?filter=x", 400)]:
        reply = hub.request("HEAD", path, consumer="admin")
        assert (reply.status, reply.body) == (status, b""), path


def test_an_unknown_query_parameter_is_refused(hub: RunningHub) -> None:
    reply = hub.get("/v1/customers", pagesize=1)
    assert reply.status == 400
    assert (reply.json()["code"], reply.reason) == (3, "VALUE_INVALID")
    assert "did you mean 'pageSize'?" in reply.json()["message"]
    assert "pagesize" in reply.json()["message"]


@pytest.mark.parametrize(
    "name",
    [
        "customer_id",
        "customerId",
        "customer%5Fid",
        "customer%49d",
        "%63ustomer_id",
        "customer_id%00",
    ],
)
def test_a_query_parameter_does_not_change_whom_a_path_names(hub: RunningHub, name: str) -> None:
    reply = hub.get(f"/v1/customers/c00000001?{name}=c00000002")
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert "c00000002" not in reply.text
    reply = hub.request("DELETE", f"/v1/customers/absent-1?{name}=c00000002", consumer="admin")
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert hub.get("/v1/customers/c00000002").status == 200


@pytest.mark.parametrize(
    "name",
    ["customer.customer_id", "customer.customerId", "customer%2Ecustomer_id"],
)
def test_nor_does_it_change_the_record_that_is_written(hub: RunningHub, name: str) -> None:
    record = new_customer()
    path = f"/v1/customers/{record['customerId']}"
    assert hub.request("POST", "/v1/customers", consumer="admin", json_body=record).status == 200
    before = hub.get("/v1/customers/c00000002").json()
    body = {"notes": "n"}
    written = hub.request("PATCH", f"{path}?{name}=c00000002", consumer="admin", json_body=body)
    assert written.status == 400
    assert hub.get("/v1/customers/c00000002").json() == before
    assert hub.get(path).json()["name"] == "Test"


def test_a_blank_in_a_query_is_a_plus_or_percent_20(hub: RunningHub) -> None:
    for text in ("name+%3D+%22Patricia+Smith%22", "name%20%3D%20%22Patricia%20Smith%22"):
        reply = hub.get(f"/v1/customers?page_size=1&filter={text}&fields=name")
        assert reply.json()["customers"] == [{"name": "Patricia Smith"}], reply.text
    reply = hub.get("/v1/customers?fields=phone&page_size=1&filter=phone%3D%22%2B1*%22")
    assert reply.json()["customers"][0]["phone"].startswith("+1 ")


def error_calls(hub: RunningHub) -> list[tuple[int, int, str, Reply]]:
    """HTTP status, code, reason and the reply of calls that fail, each in its own way."""
    return [
        (400, 3, "FILTER_INVALID", hub.get("/v1/customers", filter="name =")),
        (400, 3, "FIELD_UNKNOWN", hub.get("/v1/customers", fields="nothing")),
        (401, 16, "UNAUTHENTICATED", hub.request("GET", "/v1/customers")),
        (403, 7, "PERMISSION_DENIED", hub.get("/v1/products", "crm")),
        (404, 5, "RECORD_NOT_FOUND", hub.get("/v1/customers/absent")),
        (400, 3, "FORMAT_UNKNOWN", hub.get("/v1/customers:export", format="YAML")),
        (400, 3, "ORDER_INVALID", hub.get("/v1/customers:export", order_by="tags")),
        (400, 3, "FILTER_INVALID", hub.get("/v1/customers:exportPage", filter="name =")),
    ]


def test_errors_have_one_shape(hub: RunningHub) -> None:
    for status, code, reason, reply in error_calls(hub):
        assert (reply.status, reply.json()["code"]) == (status, code), reply.text
        assert reply.headers["content-type"] == "application/json"
        assert reply.reason == reason
        assert reply.json()["message"]
        details = {d["@type"].rpartition(".")[2]: d for d in reply.json()["details"]}
        assert details["ErrorInfo"]["domain"] == "penstock"
        assert details["RequestInfo"]["requestId"] == reply.request_id
        assert not [h for h in reply.headers if h.startswith("grpc-")]


def test_errors_come_as_problems_to_who_asks(hub: RunningHub) -> None:
    """RFC 9457: for every kind of error the same facts in another form."""
    record = {"customerId": "p1", "creditLimit": "much", "name": 7}
    calls = [
        ("GET", "/v1/customers?filter=name%20%3D", None),
        ("GET", "/v1/customers/absent", None),
        ("GET", "/v1/customers:export?format=YAML", None),
        ("GET", "/v1/customers:exportPage?fields=nothing", None),
        ("POST", "/v1/customers", record),
        ("POST", "/v1/customers", {"customerId": "p1", "creditLimit": "much"}),
        ("DELETE", "/v1/customers/absent", None),
        ("GET", "/v1/nothing", None),
    ]
    for method, path, body in calls:
        plain, problem = (
            hub.request(method, path, consumer="admin", json_body=body, headers=headers)
            for headers in ({}, {"accept": "application/problem+json, */*;q=0.1"})
        )
        told = problem.json()
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.status == plain.status == told["status"], path
        assert (told["reason"], told["detail"]) == (plain.reason, plain.json()["message"])
        assert told["type"] == f"{hub.url}/v1/errors/{plain.reason}"
        assert told["requestId"] == problem.request_id
        violations = {v["field"]: v["description"] for v in told.get("violations", [])}
        assert violations == plain.violations()
        assert not [h for h in problem.headers if h.startswith(("grpc-", "x-problem"))]
    told = (hub.data / "log" / "envoy.log").read_text()
    assert "script" not in told  # what the sidecar logs of a script that fails
    denied = hub.request("GET", "/v1/customers", headers={"accept": "application/problem+json"})
    assert (denied.status, denied.json()["reason"]) == (401, "UNAUTHENTICATED")
    assert denied.headers["www-authenticate"].startswith("Bearer")
    # Successful calls are not affected.
    good = {"accept": "application/problem+json, text/csv"}
    reply = hub.request("GET", "/v1/customers:export?limit=1", consumer="admin", headers=good)
    assert (reply.status, reply.headers["content-type"].split(";")[0]) == (200, "text/csv")
    reply = hub.request("GET", "/v1/customers/c00000001", consumer="admin", headers=good)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


def test_every_call_has_an_id_that_the_caller_cannot_choose(hub: RunningHub) -> None:
    given = "chosen-by-the-caller"
    replies = [
        hub.request("GET", path, headers={"x-request-id": given})
        for path in ("/v1/customers", "/v1/customers", "/nothing", "/healthz")
    ]
    ids = {reply.request_id for reply in replies}
    assert len(ids) == len(replies)
    assert given not in ids


def test_the_access_log_has_a_line_of_json_for_each_call(hub: RunningHub) -> None:
    secret = "c00000001-filtered"
    reply = hub.get("/v1/customers", filter=f'customer_id = "{secret}"')
    log = hub.data / "log" / "access.log"

    def line() -> dict[str, Any] | None:
        found = (e for e in read_log(log) if e["request_id"] == reply.request_id)
        return next(found, None)

    entry = eventually(line)
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/v1/customers", 200)
    assert (entry["sub"], entry["grpc_status"]) == ("admin", "OK")
    assert entry["duration_ms"] >= 0 and entry["bytes_sent"] == len(reply.body)
    assert secret not in log.read_text(), "filters may hold personal data"


@pytest.mark.parametrize("path", ["/v1/customers:export", "/v1/customers:exportPage"])
def test_the_format_is_that_of_the_accept_header(hub: RunningHub, path: str) -> None:
    # Receipts have ids, so exports differ in them.
    streamed: dict[str, object] = {"limit": 3}
    bound = streamed if path.endswith("export") else {"page_size": 3}

    def ask(accept: str | None, **query: str) -> Reply:
        headers = {"accept": accept} if accept else {}
        return hub.request("GET", path, consumer="admin", query={**bound, **query}, headers=headers)

    bodies = {}
    for name, media in FORMATS.items():
        reply = ask(media)
        assert reply.status == 200, reply.text
        assert reply.headers["content-type"].split(";")[0] == media
        assert reply.body == ask("image/png", format=name).body, "format comes before accept"
        bodies[name] = reply.body
    assert len(set(bodies.values())) == len(FORMATS)
    for accept, name in {
        "text/csv;q=0.5, application/xml": "XML",
        "text/html, text/*": "CSV",
        "*/*": "JSON",
        "application/ndjson": "NDJSON",
    }.items():
        assert ask(accept).body == bodies[name], accept
    assert ask(None).body == bodies["JSON"]
    refused = ask("image/png, text/html")
    assert (refused.status, refused.reason) == (406, "NOT_ACCEPTABLE")
    assert all(name in refused.json()["message"] for name in FORMATS)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/customers", {"page_size": 100}),
        ("/v1/customers:export", {"format": "CSV"}),
        ("/v1/customers:export", {"format": "NDJSON"}),
        ("/v1/customers:exportPage", {"format": "XML"}),
    ],
)
def test_replies_are_compressed_for_who_wants_it(
    hub: RunningHub, path: str, query: dict[str, Any]
) -> None:
    plain = hub.get(path, **query)
    assert "content-encoding" not in plain.headers
    headers = {"accept-encoding": "gzip"}
    packed = hub.request("GET", path, consumer="admin", query=query, headers=headers)
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 2
    assert gzip.decompress(packed.body) == plain.body


def test_a_body_beyond_the_limit_is_refused(hub: RunningHub) -> None:
    body = b'{"customerId": "big", "notes": "' + b"x" * (17 << 20) + b'"}'
    headers = {"content-type": "application/json"}
    reply = hub.request("POST", "/v1/customers", consumer="admin", body=body, headers=headers)
    assert reply.status == 413
    assert reply.reason == "REQUEST_TOO_LARGE"
    assert reply.request_id in reply.text
    assert hub.get("/v1/customers/big").status == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"name": 1e}', b"\xff\xfe", b'{"name": "\\ud800"}']
)
def test_a_body_that_is_no_record_is_refused(hub: RunningHub, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = hub.request("POST", "/v1/customers", consumer="admin", body=body, headers=headers)
    assert reply.status == 400, reply.text
    assert reply.json()["message"]


def test_an_api_key_does_what_a_token_does(hub: RunningHub) -> None:
    for consumer, credentials in hub.consumers.items():
        by_key = hub.request(
            "GET",
            "/v1/customers?page_size=3",
            headers={"x-api-key": credentials["api_key"]},
        )
        assert by_key.status == 200
        mine = by_key.json()
        other = hub.get("/v1/customers?page_size=3", consumer).json()
        assert mine["customers"] == other["customers"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-timeout", "1n"),
        ("grpc-timeout", "soon"),
        ("grpc-encoding", "unheard-of"),
        ("x-trace-bin", "no base64!"),
    ],
)
def test_headers_of_grpc_mean_nothing_over_http(hub: RunningHub, name: str, value: str) -> None:
    """The hub reads calls over gRPC, which would refuse them."""
    for verb, path, body in [
        ("GET", "/v1/customers/c00000001", None),
        ("GET", "/v1/customers:export?limit=1", None),
        ("GET", "/v1/errors", None),
        ("POST", "/v1/customers:batchUpsert", {"customers": [new_customer()]}),
        ("POST", "/v1/customers:import?format=NDJSON", new_customer()),
    ]:
        reply = hub.request(verb, path, consumer="admin", json_body=body, headers={name: value})
        assert reply.status == 200, (path, reply.text)


def test_many_calls_share_a_connection(hub: RunningHub) -> None:
    """The hub answers three requests, written at once on one HTTP/1.1 connection, in order."""
    token = hub.token("admin")
    calls = "".join(
        f"GET /v1/customers/c0000000{i}?fields=customer_id HTTP/1.1\r\nhost: hub\r\n"
        f"authorization: Bearer {token}\r\n{'connection: close' if i == 3 else 'x: y'}\r\n\r\n"
        for i in (1, 2, 3)
    )
    with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE) as connection:
        connection.sendall(calls.encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    places = [received.index(f'{{"customerId":"c0000000{i}"}}'.encode()) for i in (1, 2, 3)]
    assert places == sorted(places)
    assert received.count(b"HTTP/1.1 200 OK") == 3


def over_http_10(
    hub: RunningHub, line: str, *headers: str, body: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of a call over HTTP/1.0, which names no host."""
    head = [f"{line} HTTP/1.0", f"authorization: Bearer {hub.token('admin')}", *headers, "", body]
    with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join(head).encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    told, _, content = received.partition(b"\r\n\r\n")
    first, *rest = told.decode().split("\r\n")
    found = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
    return int(first.split()[1]), found, content


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_http_10_gets_whole_replies(hub: RunningHub, encoding: str) -> None:
    for path in (
        "/v1/customers/c00000001",
        "/v1/customers?page_size=200",
        "/v1/customers:exportPage?format=CSV&page_size=200",
        "/v1/customers/absent",
    ):
        now = hub.request("GET", path, consumer="admin")
        status, headers, body = over_http_10(hub, f"GET {path}", f"accept-encoding: {encoding}")
        packed = headers.get("content-encoding") == "gzip"
        plain = gzip.decompress(body) if packed else body
        assert status == now.status and "transfer-encoding" not in headers
        assert packed or int(headers["content-length"]) == len(body)
        if status == 200:
            assert plain == now.body, path


def test_http_10_writes(hub: RunningHub) -> None:
    record = new_customer()
    body = json.dumps(record)
    for line, status in [
        ("POST /v1/customers", 200),
        ("POST /v1/customers:import?format=NDJSON", 200),
    ]:
        headers = ["content-type: application/json", f"content-length: {len(body)}"]
        got, _, reply = over_http_10(hub, line, *headers, body=body)
        assert got == status, reply
    assert hub.get(f"/v1/customers/{record['customerId']}").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/customers:export",
        "/v1/customers:watch",
        "/v1/changes:watch",
        "/v1/audit/entries:export",
        "/v1/usage:export",
        "/v1/access:review",
        "/v1/scorecard:export",
    ],
)
def test_http_10_gets_no_streams(hub: RunningHub, path: str) -> None:
    for verb in ("GET", "HEAD"):
        # A caller cannot claim another version.
        claim = "x-penstock-protocol: HTTP/1.1"
        status, headers, body = over_http_10(hub, f"{verb} {path}", claim)
        assert (status, "x-http-status" in headers) == (505, False), body
        assert verb == "HEAD" or b"HTTP_VERSION_UNSUPPORTED" in body
    assert hub.request("HEAD", path, consumer="admin").status == 200


def test_curl_may_speak_http_10(hub: RunningHub) -> None:
    token = f"authorization: Bearer {hub.token('admin')}"
    for path, status in [("/v1/customers/c00000001", 200), ("/v1/customers:export", 505)]:
        command = ["curl", "-0", "-s", "-o", "-", "-w", "%{http_code}", "-H", token]
        done = subprocess.run([*command, hub.url + path], capture_output=True, check=True)
        assert done.stdout.endswith(str(status).encode()), done.stdout


def test_the_datasets_that_are_served_are_those_of_the_model() -> None:
    inputs = json.loads((ROOT / "gen" / "envoy" / "inputs.json").read_text())
    files = {p.stem for p in (ROOT / "protos" / "penstock" / "model" / "v1").glob("*.proto")}
    served = {path.removeprefix("/v1/").partition(":")[0] for path in inputs["upload_paths"]}
    assert served == files
