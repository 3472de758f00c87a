"""A hub on a hostile network: client certificates from end to end, and errors that reveal
nothing."""

from __future__ import annotations

import json
import random
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest

from certificates import Authority
from harness import Reply, RunningHub, folder
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1 import customers_service_pb2_grpc as api_grpc
from penstock.client import Client, PenstockError

pytestmark = pytest.mark.lane(priority=5)

SEED = 20_261_122
#: Signs of the hub's inside: SQL, drivers, stacks, schemas, modules, addresses of objects.
INSIDE = re.compile(
    r"SELECT |INSERT |UPDATE |DELETE FROM|WHERE |Traceback|asyncpg|sqlalchemy|psycopg|postgres"
    r"|SQLSTATE|hub\.\w+|data\.\w+|penstockd|grpc\._|\.py\b|<class|object at 0x|Errno|/tmp/|run/",
    re.IGNORECASE,
)
PROBLEM = {"accept": "application/problem+json"}


class Secured:
    """A hub that requires client certificates, and the files of one client."""

    def __init__(self, data: Path) -> None:
        self.authority = Authority()
        self.authority.pair().move_into(data / "tls")
        self.ca_file = data / "ca.pem"
        self.ca_file.write_bytes(self.authority.chain)
        self.shown = Authority("clients").pair(client="x").file(data / "stranger.pem")
        self.client_cert = self.authority.pair(client="crm").file(data / "client.pem")
        self.hub = RunningHub(
            data / "hub",
            customers=20,
            environment={
                "PENSTOCK_TLS_DIR": str(data / "tls"),
                "PENSTOCK_TLS_CLIENT_CA": str(self.ca_file),
                "PENSTOCK_WORKERS": "1",
            },
        )

    def client(self, client_cert: Path | None, **more: str) -> Client:
        """A client of the SDK."""
        credentials = self.hub.consumers["crm"]
        given = {k: credentials[k] for k in ("client_id", "client_secret")}
        url = self.hub.url.replace("http:", "https:")
        files = {"ca_file": str(self.ca_file), "client_cert": str(client_cert or "")}
        return Client(url, **given, **(files | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with folder() as data:
        made = Secured(data)
        made.hub.start()
        try:
            yield made
        finally:
            made.hub.stop()


def test_the_sdk_and_the_command_line_show_certificates(secured: Secured) -> None:
    with secured.client(secured.client_cert) as client:
        names = [c.name for c in client.dataset("customers").list(fields="name", page_size=5)]
    assert len(names) == secured.hub.customers
    files = [f"--ca-file={secured.ca_file}", f"--client-cert={secured.client_cert}"]
    done = secured.hub.command(*files, "get", "customers", "c00000001", "--as", "crm")
    assert json.loads(done.stdout)["customer_id"] == "c00000001"


def test_who_shows_no_certificate_or_a_strangers_is_not_served(secured: Secured) -> None:
    before = secured.hub.sql("SELECT count(*) FROM hub.audit_entry")
    for shown in (None, secured.shown):
        with secured.client(shown) as client, pytest.raises(PenstockError) as refused:
            client.access_token()
        assert refused.value.code == "UNAVAILABLE"
    refused_command = secured.hub.command(
        f"--ca-file={secured.ca_file}", "get", "customers", "c1", "--as", "crm", check=False
    )
    assert refused_command.returncode == 1
    with secured.client(secured.client_cert, ca_file="") as client, pytest.raises(PenstockError):
        client.access_token()  # the system's authorities do not vouch for the hub
    assert secured.hub.sql("SELECT count(*) FROM hub.audit_entry") == before


def test_the_audit_names_the_real_peer(secured: Secured) -> None:
    with secured.client(secured.client_cert) as client:
        next(iter(client.dataset("customers").list(page_size=1)))
    rows = secured.hub.sql(
        "SELECT peer FROM hub.audit_entry WHERE method LIKE '%ListCustomers' "
        "AND consumer_id = 'crm'"
    )
    assert {peer for (peer,) in rows} == {"127.0.0.1"}


def test_links_and_metadata_say_https(secured: Secured) -> None:
    url = secured.hub.url.replace("http:", "https:")
    context = secured.authority.context(secured.client_cert)
    document = json.loads(_get(f"{url}/.well-known/oauth-authorization-server", context))
    assert document["token_endpoint"] == f"{url}/oauth2/token"
    assert _get(f"{url}/healthz", context) == b""
    credentials = json.loads((secured.hub.data / "demo.json").read_text())
    assert credentials["url"] == url


def _get(url: str, context: ssl.SSLContext) -> bytes:
    from urllib.request import urlopen

    with urlopen(url, context=context) as reply:
        return bytes(reply.read())


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"PENSTOCK_HOST": "0.0.0.0"}, 2, "PENSTOCK_ALLOW_PLAINTEXT"),
        ({"PENSTOCK_TLS_CLIENT_CA": "/nowhere/ca.pem"}, 2, "needs PENSTOCK_TLS_DIR"),
        ({"PENSTOCK_TLS_DIR": "/nowhere"}, 1, "/nowhere/tls.crt cannot be read"),
        ({"PENSTOCK_TLS_DIR": "expired"}, 1, "expired on"),
        ({"PENSTOCK_CORS_ORIGINS": "*"}, 2, "'*' is not an origin"),
        ({"PENSTOCK_CORS_ORIGINS": "https://a.example/path"}, 2, "is not an origin"),
        ({"PENSTOCK_PUBLIC_URL": "hub.example.com"}, 2, "PENSTOCK_PUBLIC_URL"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_what_is_not_safe_does_not_start(settings: dict[str, str], code: int, said: str) -> None:
    with folder() as data:
        if settings.get("PENSTOCK_TLS_DIR") == "expired":
            Authority().pair(days=-1, begin=-2).move_into(data / "tls")
            settings = {"PENSTOCK_TLS_DIR": str(data / "tls")}
        hub = RunningHub(data / "hub", environment=settings)
        done = hub.command("up", check=False)
        text = done.stderr.decode()
        assert (done.returncode, said in text) == (code, True), text
        assert "Traceback" not in text
        sentences = [line for line in text.splitlines() if line.startswith("penstock: ")]
        assert len(sentences) == 1


def strange(random_: random.Random) -> str:
    """A value that some component may not be able to handle."""
    kinds = [
        lambda: "".join(chr(random_.choice([*range(32, 127), 233, 0x4E2D])) for _ in range(12)),
        lambda: random_.choice(["'", '"', "\\", ";--", "$1", "%s", "{}", "\x00", "\x1f", "\ud7ff"]),
        lambda: str(random_.choice([-1, 0, 2**31, 2**63, 2**64, 10**400, "1e999", "NaN", "-0"])),
        lambda: "(" * random_.choice([1, 40, 400]),
        lambda: random_.choice(["name =", "= x", "name = 'a", "NOT", "a.b.c.d", "tags:", "*", ","]),
        lambda: random_.choice(["2024-02-30", "0000-00-00T00:00:00Z", "[]", "null", "true"]),
        lambda: "x" * random_.choice([100, 5_000]),
    ]
    return random_.choice(kinds)()


def bad_calls(hub: RunningHub) -> Iterator[tuple[str, Reply]]:
    """Calls that fail in many ways, with their requests."""
    random_ = random.Random(SEED)
    lists = ("filter", "order_by", "fields", "page_size", "page_token", "format", "limit")
    methods = ["customers", "orders", "products", "customers:export", "customers:exportPage"]
    for number in range(260):
        consumer = random_.choice(["admin", "crm", "bi"])
        headers = PROBLEM if number % 2 else {}
        value = strange(random_)
        match random_.randrange(4):
            case 0 | 1:
                path = f"/v1/{random_.choice(methods)}?{random_.choice(lists)}={quote(value)}"
                yield path, hub.request("GET", path, consumer=consumer, headers=headers)
            case 2:
                path = f"/v1/customers/{quote(value, safe='')}"
                verb = random_.choice(["GET", "DELETE"])
                yield path, hub.request(verb, path, consumer=consumer, headers=headers)
            case _:
                field = random_.choice(["customerId", "name", "creditLimit", "tags", "updateTime"])
                made: Any = random_.choice([value, [value], {"a": value}, 1e308])
                body = {"customerId": f"t-{number}", field: made}
                path = "/v1/customers"
                sent = hub.request("POST", path, consumer=consumer, headers=headers, json_body=body)
                yield f"{path} {body}", sent
    for path in ("/v1/customers/%c0%af", "/v1/customers/%ff", "/v1/errors/%27"):
        for headers in ({}, PROBLEM):
            yield path, hub.request("GET", path, consumer="admin", headers=headers)


def test_no_error_tells_of_the_inside(hub: RunningHub) -> None:
    print(f"seed {SEED}")
    statuses: dict[int, int] = {}
    told = []
    for asked, reply in bad_calls(hub):
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        if reply.status < 400:
            continue
        text = reply.text + "\n".join(reply.headers.values())
        if INSIDE.search(text.replace(hub.url, "")):
            told.append((asked[:200], reply.text))
        assert "reason" in reply.text, (asked, reply.text)
        kind = reply.headers["content-type"]
        assert kind in ("application/json", "application/problem+json"), asked
    assert not told
    assert 500 not in statuses, statuses
    assert sum(n for status, n in statuses.items() if status >= 400) > 100, statuses


def test_the_scan_would_see_it() -> None:
    """Negative control."""
    for text in ('relation "data.customers"', "asyncpg.exceptions", "SELECT 1", "<class 'x'>"):
        assert INSIDE.search(text)


def test_bytes_that_are_no_message_are_refused_as_any_other(hub: RunningHub) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for name in ("GetCustomer", "ListCustomers", "StreamExportCustomers"):
            method: Any = channel.unary_stream(f"/penstock.api.v1.Customers/{name}")
            with pytest.raises(grpc.RpcError) as raised:
                list(method(b"\xff\xff\xff", metadata=hub.metadata("admin")))
            error: Any = raised.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert not INSIDE.search(error.details())
            with pytest.raises(grpc.RpcError) as raised:
                list(method(b"\xff\xff\xff"))
            error = raised.value
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, "who calls is asked first"


def alike(*replies: Reply) -> bool:
    """Whether replies are the same except for the request's id."""
    return len({reply.text.replace(reply.request_id, "<id>") for reply in replies}) == 1


@pytest.mark.parametrize("headers", [{}, PROBLEM], ids=["status", "problem"])
def test_what_is_absent_and_what_is_not_for_you_are_answered_alike(
    hub: RunningHub, headers: dict[str, str]
) -> None:
    """Keys of the same length of rows that exist, that exist only for others, and that do not
    exist."""
    others = hub.get("/v1/customers", filter="status != ACTIVE", fields="customer_id", page_size=1)
    foreign = str(others.json()["customers"][0]["customerId"])
    absent = "z" + foreign[1:]
    assert hub.get(f"/v1/customers/{foreign}", "admin").status == 200

    def ask(key: str, consumer: str = "bi", query: str = "") -> Reply:
        path = f"/v1/customers/{key}{query}"
        reply = hub.request("GET", path, consumer=consumer, headers=headers)
        return Reply(reply.status, reply.headers, reply.body.replace(key.encode(), b"<key>"))

    found = ask(foreign), ask(absent)
    assert {reply.status for reply in found} == {404} and alike(*found)
    # A field that exists only for others, and one that does not exist.
    hidden, unknown = (
        hub.request("GET", f"/v1/customers?fields={name}", consumer="crm", headers=headers)
        for name in ("tax_number", "max_number")
    )
    changed = Reply(hidden.status, hidden.headers, hidden.body.replace(b"tax", b"max"))
    assert hidden.status == 400 and "tax_number" in hidden.text
    assert alike(
        Reply(200, changed.headers, changed.body), Reply(200, unknown.headers, unknown.body)
    )
    # The caller's own records look different: the comparison can fail.
    assert not alike(ask("c00000001", "admin"), ask(absent, "admin"))


def test_every_link_of_an_error_leads_somewhere(hub: RunningHub) -> None:
    listed = hub.request("GET", "/v1/errors").json()["errors"]
    assert len(listed) > 20
    reply = hub.get("/v1/customers/absent")
    links = [d["links"][0]["url"] for d in reply.json()["details"] if "links" in d]
    page = hub.request("GET", links[0].removeprefix(hub.url))
    assert page.status == 200 and page.json()["reason"] == reply.reason
    assert page.json() in listed
    assert hub.request("GET", "/v1/errors/NOTHING").status == 404


def test_grpc_errors_link_as_well(hub: RunningHub) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = api_grpc.CustomersStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetCustomer(
                api.GetCustomerRequest(customer_id="absent"), metadata=hub.metadata("admin")
            )
    error: Any = raised.value
    trailers = dict(error.trailing_metadata())
    assert b"/v1/errors/RECORD_NOT_FOUND" in trailers["grpc-status-details-bin"]
    assert "x-problem" not in trailers
