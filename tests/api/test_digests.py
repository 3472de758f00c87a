"""Digests: a consumer that computes them from the records it sees gets the hub's digests."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from digesting import DATASETS, Form, range_digest, records
from harness import ROOT, SECRET, Reply, RunningHub, eventually, new_customer
from penstock.api.v1 import customers_service_pb2, customers_service_pb2_grpc
from penstock.client import Client
from penstock.client.canonical import canonical_json, format_canonical, record_digest
from penstock.model.v1.customers_pb2 import Customer
from penstockd.auth.secret import RootSecret
from penstockd.keyring import PAGE_TOKENS, KeyRing
from penstockd.query import PageTokens, query_digest

EMPTY = hashlib.sha256().hexdigest()
ROLES = ("admin", "crm", "bi")
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    | st.sampled_from(['"', "\\", "\n", "\t", "\r", "\u2028", "\x7f", "\U0001f600", "\ue000", "ß"]),
    max_size=30,
)
MONEY = st.decimals(0, 10**10, places=4).map(str) | st.sampled_from(["0", "0.0", "12.50", "100"])
DATES = st.dates().map(str)
TIMES = st.sampled_from(
    ["2026-01-02T03:04:05Z", "1969-12-31T23:59:59.999999Z", "2026-01-02T03:04:05.120+02:00"]
)


def of(
    required: dict[str, st.SearchStrategy[Any]] | None = None, **members: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Returns the records that have the required and some of the other members."""
    return st.fixed_dictionaries(required or {}, optional=members)


NAMED = {"name": TEXT.filter(bool)}
ADDRESS = of(line1=TEXT, line2=TEXT, city=TEXT, countryCode=st.just("DE"))
LINE = of(
    productId=TEXT, quantity=st.integers(0, 2**31 - 1), unitPrice=MONEY, discount=st.just("0.250")
)
RECORDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "customers": of(
        NAMED,
        status=st.sampled_from(["ACTIVE", "LEAD", "STATUS_UNSPECIFIED"]),
        email=st.just("zoe@example.com"),
        taxId=TEXT,
        billingAddress=ADDRESS,
        creditLimit=MONEY,
        lifetimeValue=MONEY,
        marketingOptIn=st.booleans(),
        tags=st.lists(TEXT, max_size=3),
        notes=TEXT,
        birthDate=DATES,
        source=TEXT,
    ),
    "contacts": of(givenName=TEXT, familyName=TEXT, jobTitle=TEXT, phone=TEXT),
    "products": of(
        NAMED,
        description=TEXT,
        unitPrice=MONEY,
        unitsInStock=st.integers(-(2**63), 2**63 - 1).map(str),
        reorderLevel=st.integers(0, 2**31 - 1),
        weightKg=st.sampled_from([0, 0.1, 1e15, 123456.75, 1e20, 0.000001, 5]),
        attributes=st.dictionaries(TEXT, TEXT, max_size=4),
    ),
    "orders": of(
        total=MONEY,
        orderDate=DATES,
        lines=st.lists(LINE, max_size=3),
        shippingAddress=of(city=TEXT),
    ),
    "interactions": of(
        occurTime=TIMES,
        subject=TEXT,
        body=TEXT,
        durationSeconds=st.integers(0, 9),
        sentiment=st.sampled_from([-1, 0, 0.25, 1]),
    ),
}


def sample(strategy: st.SearchStrategy[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records that Hypothesis generates, the same in each run."""
    made: list[dict[str, Any]] = []

    @settings(
        max_examples=60, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def draw(record: dict[str, Any]) -> None:
        made.append(record)

    draw()
    return made


@pytest.fixture(scope="module")
def nasty(spare: RunningHub) -> RunningHub:
    """Records with values that Hypothesis generates, in addition to the demo's."""
    for dataset, strategy in RECORDS.items():
        made = sample(strategy)
        key = dataset.removesuffix("s") + "Id"
        body = {dataset: [{**r, key: f"n{i:03}-é\uff5e\U0001f600"} for i, r in enumerate(made)]}
        path = f"/v1/{dataset}:batchUpsert"
        reply = spare.request("POST", path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
    return spare


def digest(hub: RunningHub, dataset: str, consumer: str = "admin", **query: object) -> Any:
    reply = hub.get(f"/v1/{dataset}:digest", consumer, **query)
    assert reply.status == 200, reply.text
    return reply.json()


def repair(hub: RunningHub, body: dict[str, Any], consumer: str = "admin") -> Reply:
    path = "/v1/customers:repair"
    return hub.request("POST", path, consumer=consumer, json_body=body)


def of_records(reply: Any) -> dict[str, str]:
    return {
        r["key"]: r["sha256"] for part in reply.get("ranges", []) for r in part.get("records", [])
    }


@pytest.mark.parametrize("consumer", ROLES)
@pytest.mark.parametrize("dataset", DATASETS)
def test_everybody_computes_the_same(nasty: RunningHub, dataset: str, consumer: str) -> None:
    if (dataset, consumer) == ("products", "crm"):
        assert nasty.get("/v1/products:digest", consumer).reason == "PERMISSION_DENIED"
        return
    told = of_records(digest(nasty, dataset, consumer, keys="true"))
    key = dataset.removesuffix("s") + "Id"
    seen, form = records(nasty, dataset, consumer), Form.of(nasty, dataset, consumer)
    assert {r[key]: form.digest(r) for r in seen} == told
    assert list(told) == sorted(told)
    with Client(nasty.url, token=nasty.token(consumer)) as client:
        messages = list(client.dataset(dataset).list(page_size=1000))
        assert {m.DESCRIPTOR.name for m in messages} == {
            client.dataset(dataset).record_class.__name__
        }
    assert [record_digest(m).hex() for m in messages] == list(told.values())
    for message, record in zip(messages, seen, strict=True):
        assert canonical_json(record, type(message)).decode() == form.text(record)
    lines = nasty.get(f"/v1/{dataset}:export", consumer, format="NDJSON").body
    exported = [canonical_json(json.loads(line), type(messages[0])) for line in lines.splitlines()]
    assert exported == [format_canonical(m) for m in messages]


@pytest.mark.parametrize("parts", [1, 7, 64, 4096])
def test_ranges_are_all_keys_and_their_digests_those_of_their_records(
    nasty: RunningHub, parts: int
) -> None:
    told = of_records(digest(nasty, "customers", keys="true"))
    reply = digest(nasty, "customers", parts=parts)
    ranges = reply["ranges"]
    assert len(ranges) <= parts and int(reply["rowCount"]) == len(told)
    assert "startKey" not in ranges[0] and "endKey" not in ranges[-1]
    counts = [int(r["rowCount"]) for r in ranges]
    assert max(counts) == -(-len(told) // parts) and len(set(counts[:-1])) <= 1
    for before, after in itertools.pairwise(ranges):
        assert before["endKey"] == after["startKey"]
    for part in ranges:
        low, high = part.get("startKey", ""), part.get("endKey")
        within = [d for k, d in told.items() if k >= low and (high is None or k < high)]
        assert (int(part["rowCount"]), part["sha256"]) == (len(within), range_digest(within))


def test_a_part_of_the_keys_the_fields_and_the_records(nasty: RunningHub) -> None:
    bounds = {"start_key": "c00000010", "end_key": "c00000020"}
    told = of_records(digest(nasty, "customers", keys="true", **bounds))
    assert list(told) == [f"c{i:08}" for i in range(10, 20)]
    (part,) = digest(nasty, "customers", parts=1, **bounds)["ranges"]
    assert (part["startKey"], part["endKey"]) == (bounds["start_key"], bounds["end_key"])
    some = {"filter": "status = ACTIVE", "fields": "name,billing_address"}
    seen = records(
        nasty, "customers", "bi", filter=some["filter"], fields="customer_id,name,billing_address"
    )
    form = Form.of(nasty, "customers", "bi")
    reply = digest(nasty, "customers", "bi", keys="true", **some)
    assert of_records(reply) == {r["customerId"]: form.digest(r) for r in seen}
    assert len(seen) > 100
    nothing = digest(nasty, "customers", filter='name = "nobody at all"')
    assert nothing["ranges"] == [{"sha256": EMPTY, "rowCount": "0"}] or nothing["ranges"] == [
        {"sha256": EMPTY}
    ]


def test_the_worked_example() -> None:
    """The example in the proto's comments is correct for a record and for its range."""
    text = (ROOT / "protos/penstock/hub/v1/digests.proto").read_text()
    lines = [line.removeprefix("//").strip() for line in re.findall("^//     .*$", text, re.M)]
    ending = next(i for i, line in enumerate(lines) if line.endswith('"}'))
    record = json.loads("".join(lines[: ending + 1]))
    form, of_record, of_range = "".join(lines[ending + 1 : -2]), *lines[-2:]
    assert canonical_json(record, Customer).decode() == form
    assert format_canonical(json_format.ParseDict(record, Customer())).decode() == form
    found = hashlib.sha256(form.encode())
    assert (found.hexdigest(), hashlib.sha256(found.digest()).hexdigest()) == (of_record, of_range)


@pytest.mark.parametrize(
    ("consumer", "field", "value"),
    [("crm", "taxId", "T-1"), ("crm", "creditLimit", "77.7"), ("bi", "phone", "+1 555")],
)
def test_hidden_values_do_not_move_digests(
    spare: RunningHub, consumer: str, field: str, value: str
) -> None:
    path = "/v1/customers/c00000001"
    spare.request("PATCH", path, consumer="admin", json_body={"status": "ACTIVE", field: "1"})
    before = digest(spare, "customers", consumer), digest(spare, "customers")
    changed = spare.request("PATCH", path, consumer="admin", json_body={field: value})
    assert changed.json()[field] == value
    after = digest(spare, "customers", consumer), digest(spare, "customers")
    assert after[0]["ranges"] == before[0]["ranges"]
    # Negative control: a caller that sees the field is told.
    assert after[1]["ranges"] != before[1]["ranges"]


def test_rows_that_are_hidden_do_not_count(spare: RunningHub) -> None:
    lead = new_customer(status="LEAD")
    before = digest(spare, "customers", "bi")["rowCount"]
    assert spare.request("POST", "/v1/customers", consumer="admin", json_body=lead).status == 200
    assert digest(spare, "customers", "bi")["rowCount"] == before
    told = {"key": lead["customerId"], "sha256": EMPTY}
    body = {"ranges": [{"startKey": told["key"], "endKey": "t~", "rowCount": 1, "records": [told]}]}
    # A caller that may not see the record is told to delete it, as if it did not exist.
    assert repair(spare, body, "bi").json().get("deletes") == [told["key"]]
    assert repair(spare, body).json()["upserts"][0]["customerId"] == told["key"]


def test_a_state_stays_as_it_was(spare: RunningHub) -> None:
    first = digest(spare, "customers")
    created = spare.request("POST", "/v1/customers", consumer="admin", json_body=new_customer())
    assert created.status == 200
    state = first["state"]
    for _ in range(8):  # through any of the workers
        again = digest(spare, "customers", state=state)
        state = again["state"]
        assert again["ranges"] == first["ranges"] and again["cursor"] == first["cursor"]
    assert digest(spare, "orders", state=state)["cursor"] == first["cursor"]
    now = digest(spare, "customers")
    assert now["ranges"] != first["ranges"] and now["cursor"] != first["cursor"]
    # The same View as in an export and in the feed at that place.
    spare.head()  # a poll returns a change only after it has its number
    feed = spare.get("/v1/customers:changes", cursor=first["cursor"]).json()
    assert created.json()["customerId"] in [c["key"] for c in feed["changes"]]


def holders(hub: RunningHub, token: str) -> list[int]:
    """The database sessions that hold the state of a token that the admin was given."""
    tokens = PageTokens(KeyRing.of(RootSecret(SECRET)).keys(PAGE_TOKENS))
    bound = query_digest(dataset="", filter="", order_by="state", fields="", scope="admin")
    _, name, *_ = tokens.read(token, bound)
    proc, transaction, _ = name.split("-")
    place = f"{int(proc, 16)}/{int(transaction, 16)}"
    return [
        row[0]
        for row in hub.sql(
            "SELECT pid FROM pg_locks WHERE locktype = 'virtualxid' AND virtualtransaction = $1",
            place,
        )
    ]


def test_a_state_that_is_gone(spare: RunningHub) -> None:
    state = digest(spare, "customers")["state"]
    for pid in holders(spare, state):
        spare.sql("SELECT pg_terminate_backend($1, 5000)", pid)
    body = {"state": state, "ranges": [{"rowCount": 0}]}
    for reply in (spare.get("/v1/customers:digest", state=state), repair(spare, body)):
        assert (reply.status, reply.reason) == (400, "STATE_GONE")
    assert digest(spare, "customers")["state"] != state


def test_states_are_not_hoarded(spare: RunningHub) -> None:
    """Each state delays the database's vacuum, so a worker keeps only two for each caller."""
    for _ in range(30):
        digest(spare, "products", "bi")

    def held() -> int:
        return int(
            spare.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
                " AND backend_xmin IS NOT NULL AND application_name <> 'penstock'"
            )[0][0]
        )

    # The states of three consumers, in each of the workers.
    eventually(lambda: held() <= 3 * 2 * len(spare.processes("worker")))


def test_a_state_is_nobody_elses(spare: RunningHub) -> None:
    state = digest(spare, "customers")["state"]
    for consumer, token in (
        ("crm", state),
        ("admin", state[:-4] + "AAAA"),
        ("admin", "x"),
        ("admin", spare.get("/v1/customers", page_size=1).json()["nextPageToken"]),
    ):
        reply = spare.get("/v1/customers:digest", consumer, state=token)
        assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
        assert reply.violations() == {"state": "is not a state of this query"}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"start_key": "b", "end_key": "a"}, "VALUE_INVALID"),
        ({"start_key": "b", "end_key": "b"}, "VALUE_INVALID"),
        ({"start_key": "\0"}, "VALUE_INVALID"),
        ({"parts": -1}, "VALUE_INVALID"),
        ({"fields": "nothing"}, "FIELD_UNKNOWN"),
        ({"fields": "tax_id"}, "FIELD_UNKNOWN"),
        ({"filter": 'tax_id = "1"'}, "FIELD_UNKNOWN"),
        ({"filter": "name ="}, "FILTER_INVALID"),
    ],
)
def test_what_no_digest_can_be_of(spare: RunningHub, query: dict[str, object], reason: str) -> None:
    reply = spare.get("/v1/customers:digest", "crm", **query)
    assert (reply.status, reply.reason) == (400, reason)


def test_the_audit_knows_what_was_read(spare: RunningHub) -> None:
    whole = spare.get("/v1/customers:digest", "bi", parts=3)
    record = {"key": "c00000001", "sha256": EMPTY}
    ranges = [{"endKey": "c00000002", "rowCount": 1, "records": [record]}]
    ranges += [{"startKey": "c00000002", "rowCount": 1, "sha256": EMPTY}]
    spare.request(
        "PATCH", "/v1/customers/c00000001", consumer="admin", json_body={"status": "ACTIVE"}
    )
    mended = repair(spare, {"ranges": ranges}, "bi")
    assert len(mended.json()["upserts"]) == 1 and len(mended.json()["differing"]) > 1

    def entries(reply: Reply) -> list[tuple[Any, ...]]:
        return spare.sql(
            "SELECT e.phase, e.row_count, s.content FROM hub.audit_entry AS e"
            " JOIN hub.audit_shown AS s ON s.digest = e.shown"
            " WHERE request_id = $1 ORDER BY e.phase",
            reply.request_id,
        )

    ((phase, rows, shown),) = entries(whole)
    assert (phase, rows) == ("CALL", int(whole.json()["rowCount"]))
    assert list(json.loads(shown)["fields"]) == ["customer_id"]
    (_, rows, shown), (part, _, keys_only) = entries(mended)
    assert (rows, part) == (1, "PART")
    assert "name" in json.loads(shown)["fields"]
    assert list(json.loads(keys_only)["fields"]) == ["customer_id"]


def test_over_grpc(spare: RunningHub) -> None:
    with Client(spare.url, token=spare.token("bi")) as client:
        stub = customers_service_pb2_grpc.CustomersStub(client.channel)
        reply = stub.DigestCustomers(customers_service_pb2.DigestCustomersRequest(parts=2))
        over_rest = digest(spare, "customers", "bi", parts=2)
        assert json_format.MessageToDict(reply)["ranges"] == over_rest["ranges"]
        assert reply.view == over_rest["view"] != digest(spare, "customers")["view"]
