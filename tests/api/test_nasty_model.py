"""Models as other people's tables demand them: odd names, types and keys, through every
interface."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import io
import json
import operator
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import asyncpg
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from digesting import Form
from feeds import CLEAR, Made, consumer_with, grant
from harness import Reply, RunningHub, eventually, folder, in_json
from workshops import OUTPUT, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

FORMATS = ("CSV", "NDJSON", "JSON", "XML", "PARQUET", "ARROW")


@pytest.fixture(scope="module")
def hub(modelled: Workshop) -> RunningHub:
    return modelled.hub


def own_fields(reply: dict[str, Any]) -> dict[str, Any]:
    """A record without the fields that the hub writes."""
    return {name: value for name, value in reply.items() if name not in OUTPUT}


def check_everywhere(
    hub: RunningHub,
    path: str,
    key: str | Callable[[dict[str, Any]], str],
    records: list[dict[str, Any]],
) -> None:
    """Check that records pass unchanged through every way in and out of the dataset at ``path``.

    ``key`` is the name of its field, or a function of the record.

    Parquet and Arrow hold decimals as numbers, without the trailing zeros that their writer added.
    """
    hub.head()  # all writes so far have their numbers, so they come before the place
    place = hub.get(f"{path}:changes", "admin").json()["nextCursor"]
    key_of: Callable[[dict[str, Any]], str] = key if callable(key) else operator.itemgetter(key)
    by_key = {key_of(r): r for r in records}
    form = Form.of(hub, path.rpartition("/")[2], "admin")

    def record_of(reply: dict[str, Any]) -> dict[str, Any]:
        """What is set of a record, without the fields that the hub writes."""
        return form.given(own_fields(reply))

    for record in records:
        reply = hub.request("POST", path, consumer="admin", json_body=record)
        assert reply.status == 200, reply.text
        assert record_of(reply.json()) == record
        got = hub.get(f"{path}/{quote(key_of(record), safe='')}", "admin")
        assert (got.status, record_of(got.json())) == (200, record), got.text
    told = hub.get(f"{path}:changes", "admin", cursor=place, wait="30s").json()["changes"]
    assert {c["key"]: record_of(c["after"]) for c in told}.items() <= by_key.items()
    reply = hub.get(path, "admin")
    assert reply.status == 200, reply.text
    listed = reply.json()[path.rpartition("/")[2]]
    assert {key_of(r): record_of(r) for r in listed} == by_key
    files = {}
    for name in FORMATS:
        file = hub.get(f"{path}:export", "admin", format=name)
        assert file.status == 200, f"{name}: {file.text}"
        files[name] = file.body
        again = hub.request(
            "POST", f"{path}:import?format={name}", consumer="admin", body=file.body
        )
        count = str(len(records))
        assert again.json() == {"rowCount": count, "unchangedCount": count}, (name, again.text)
    check_files(hub, path, files, records, key_of, record_of)


def check_files(
    hub: RunningHub,
    path: str,
    files: dict[str, bytes],
    records: list[dict[str, Any]],
    key_of: Callable[[dict[str, Any]], str],
    record_of: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Check that each file brings back the records after they were deleted."""
    by_key = {key_of(r): r for r in records}
    for name, data in files.items():
        for record in records:
            gone = hub.request(
                "DELETE", f"{path}/{quote(key_of(record), safe='')}", consumer="admin"
            )
            assert gone.status == 200, gone.text
        again = hub.request("POST", f"{path}:import?format={name}", consumer="admin", body=data)
        assert again.json().get("createdCount") == str(len(records)), (name, again.text)
        listed = hub.get(path, "admin").json()[path.rpartition("/")[2]]
        again_read = {key_of(r): record_of(r) for r in listed}
        if name in ("PARQUET", "ARROW"):
            assert without_zeros(again_read) == without_zeros(by_key), name
        else:
            assert again_read == by_key, name


def without_zeros(value: Any) -> Any:
    """JSON in which texts that are decimals have lost their trailing zeros."""
    if isinstance(value, dict):
        return {k: without_zeros(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_zeros(v) for v in value]
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+\.[0-9]+", value):
        return value.rstrip("0").rstrip(".")
    return value


RECEIPTS: list[dict[str, Any]] = [
    {
        "number": "2024/07-1",
        "ctid": "(0,1)",
        "xmin": "-1",
        "visible": True,
        "key": "k",
        "total": "12345678901234567890",
        "theEstablishmentThatIssuedIt": {
            "theNameUnderWhichItIsEnteredInTheRegister": "a",
            "theNameUnderWhichItIsEnteredInTheRegistry": "b",
        },
        "tableoid": "/",
    },
    {"number": "/"},
    {"number": "a/../b~c%2Fd ä\u00a0\u200b?#&+;:"},
]


def test_names_that_the_hub_and_its_database_use(hub: RunningHub) -> None:
    check_everywhere(hub, "/v1/data/receipts", "number", RECEIPTS)
    path = "/v1/data/receipts"
    for text in ('ctid = "(0,1)"', "xmin < 0", "visible = true", "total = 12345678901234567890"):
        found = hub.get(path, "admin", filter=text, fields="number").json()
        assert found == {"receipts": [{"number": "2024/07-1"}]}, text
    ordered = hub.get(path, "admin", order_by="ctid desc", fields="number").json()["receipts"]
    assert ordered[0] == {"number": "2024/07-1"}
    refused = {"number": "r", "total": "1.5"}
    reply = hub.request("POST", path, consumer="admin", json_body=refused)
    assert list(reply.violations()) == ["total"]
    changed = hub.request(
        "PATCH", f"{path}/{quote('/', safe='')}", consumer="admin", json_body={"ctid": "now"}
    )
    assert changed.json()["ctid"] == "now"
    assert hub.get("/v1/receipts/none", "admin").reason == "RECEIPT_NOT_FOUND", "the hub's own"
    digest = hub.get(f"{path}:digest", "admin", keys="true").json()
    assert [r["key"] for r in digest["ranges"][0]["records"]] == sorted(
        r["number"] for r in RECEIPTS
    )
    said = hub.command("migrate").stdout.decode()
    assert "as the model wants it" in said
    shown = json.loads(hub.command("get", "receipts", "2024/07-1").stdout)
    assert shown["ctid"] == "(0,1)"


PARTIES: list[dict[str, Any]] = [
    {
        "partyId": "p1",
        "mail": "",
        "account": {"iban": "DE", "owner": "o"},
        "ways": [{"mail": "m"}, {"phone": 0, "note": "n"}, {"address": {"street": "s"}}],
        "login": "one",
        "badge": 1,
        "town": "Ulm",
    },
    {"partyId": "p2", "phone": "0", "account": {"local": "0"}, "login": "two", "badge": 2},
    {"partyId": "p3", "address": {"street": "S", "town": "T"}, "badge": 0},
    {"partyId": "p4", "atTime": "2024-02-29T12:00:00.123456Z"},
    {"partyId": "p5"},
]
WAYS = ("mail", "phone", "address", "atTime")


def shown_ways(hub: RunningHub, key: str) -> set[str]:
    return ways_of(hub.get(f"/v1/parties/{key}", "admin"))


def ways_of(reply: Reply) -> set[str]:
    """The members of the oneof that are set in a party."""
    return {name for name in WAYS if reply.json()[name] is not None}


def test_one_member_of_a_oneof_is_set(hub: RunningHub) -> None:
    check_everywhere(hub, "/v1/parties", "partyId", PARTIES)
    values: dict[str, Any] = {
        "mail": "x",
        "address": {"town": "t"},
        "phone": "7",
        "atTime": "2024-01-01T00:00:00Z",
    }
    for name, value in values.items():  # by update, with and without a mask, by batch and by file
        body = {name: value}
        path = "/v1/parties/p1"
        for query in ({}, {"update_mask": "at_time" if name == "atTime" else name}):
            for other in ("p1", "p5"):
                reply = hub.request(
                    "PATCH", f"/v1/parties/{other}", consumer="admin", json_body=body, query=query
                )
                assert ways_of(reply) == {name}, reply.text
        hub.request("PATCH", path, consumer="admin", json_body={"mail": "before"})
        column = {"atTime": "at_time", "address": "address.town"}.get(name, name)
        cell = value["town"] if name == "address" else value
        file = f"party_id,{column}\np1,{cell}\n".encode()
        reply = hub.request("POST", "/v1/parties:import?format=CSV", consumer="admin", body=file)
        assert reply.status == 200 and shown_ways(hub, "p1") == {name}, reply.text
    two = {"partyId": "p9", "mail": "m", "phone": "1"}
    row = "party_id,mail,phone\np9,m,1\n"
    xml = "<parties><party><party_id>p9</party_id><mail>m</mail><phone>1</phone></party></parties>"
    files = {"NDJSON": json.dumps(two), "JSON": json.dumps([two]), "CSV": row, "XML": xml}
    for name, text in files.items():
        path = f"/v1/parties:import?format={name}"
        reply = hub.request("POST", path, consumer="admin", body=text.encode())
        assert list(reply.violations()) == ["rows[1].contact"], (name, reply.text)
    within = {"partyId": "p9", "ways": [{"note": "n"}, {"mail": "m", "phone": 1}]}
    path = "/v1/parties:import?format=NDJSON"
    reply = hub.request("POST", path, consumer="admin", body=json.dumps(within).encode())
    assert reply.status == 400 and "several of its members are set: mail, phone" in reply.text
    created = hub.request("POST", "/v1/parties", consumer="admin", json_body=two)
    assert list(created.violations()) == ["contact"], created.text
    assert hub.sql("SELECT count(*) FROM data.parties WHERE num_nonnulls(mail, phone) > 1") == [
        (0,)
    ]


def test_values_that_are_unique(hub: RunningHub) -> None:
    path = "/v1/parties"
    hub.request("DELETE", f"{path}/u1", consumer="admin")
    first = {"partyId": "u1", "login": "taken", "badge": 100}
    assert hub.request("POST", path, consumer="admin", json_body=first).status == 200
    twice = {"partyId": "u2", "login": "taken", "badge": 100}
    reply = hub.request("POST", path, consumer="admin", json_body=twice)
    assert (reply.status, reply.reason) == (409, "VALUE_TAKEN"), reply.text
    assert list(reply.violations()) == ["login", "badge"] and "u1" not in reply.text
    hub.request("POST", path, consumer="admin", json_body={"partyId": "u2", "badge": 101})
    reply = hub.request("PATCH", f"{path}/u2", consumer="admin", json_body={"badge": 100})
    assert (reply.reason, list(reply.violations())) == ("VALUE_TAKEN", ["badge"])
    same = hub.request("PATCH", f"{path}/u1", consumer="admin", json_body={"badge": 100})
    assert same.status == 200, "a record may keep its value"
    batch = {"parties": [{"partyId": "u3"}, {"partyId": "u4"}, twice]}
    reply = hub.request("POST", f"{path}:batchUpsert", consumer="admin", json_body=batch)
    assert reply.reason == "VALUE_TAKEN", reply.text
    batch["partial"] = True  # type: ignore[assignment]
    reply = hub.request("POST", f"{path}:batchUpsert", consumer="admin", json_body=batch)
    assert reply.json()["createdCount"] == "2", "nothing is compared of what is not set"
    assert reply.json()["refusedCount"] == "1"
    for size in (2, 1500):  # small batches, and large ones that COPY loads
        rows = [f"v{i},n{i},{1000 + i}" for i in range(size)]
        file = "\n".join(["party_id,login,badge", *rows, "v-last,n0,", "v-end,,100"]).encode()
        query = "format=CSV&partial=true"
        reply = hub.request("POST", f"{path}:import?{query}", consumer="admin", body=file)
        told = [(e["row"], e["field"]) for e in reply.json()["rowErrors"]]
        assert told == [(str(size + 1), "login"), (str(size + 2), "badge")], reply.text
        reply = hub.request("POST", f"{path}:import?format=CSV", consumer="admin", body=file)
        assert reply.reason == "VALUE_TAKEN", reply.text
    long = {"partyId": "u5", "town": "t" * 2001}
    reply = hub.request("POST", path, consumer="admin", json_body=long)
    assert list(reply.violations()) == ["town"]
    indexes = hub.sql("SELECT indexname FROM pg_indexes WHERE tablename = 'parties'")
    assert {"parties.login~unique", "parties.badge~unique", "parties.town~index"} <= {
        i[0] for i in indexes
    }


def write_rows(
    hub: RunningHub, rows: list[tuple[str, str]], way: str, key: str = "", **query: Any
) -> Reply:
    """Set logins and badges of parties, given as "login,badge" by key, in one of the ways in
    WRITES. Without an API ``key`` the administrator calls."""
    caller = caller_with(key)
    kind, _, partial = way.partition(" ")
    path = f"/v1/parties:{kind}"
    if kind == "import":
        lines = ["party_id,login,badge", *(f"{name},{values}" for name, values in rows)]
        file = "\n".join(lines).encode()
        query |= {"format": "CSV"} | ({"partial": "true"} if partial else {})
        return hub.request("POST", path, query=query, body=file, **caller)
    parties = []
    for name, values in rows:
        login, _, badge = values.partition(",")
        parties.append({"partyId": name, "login": login} | ({"badge": int(badge)} if badge else {}))
    body = {"parties": parties, **query} | ({"partial": True} if partial else {})
    return hub.request("POST", path, json_body=body, **caller)


def caller_with(key: str) -> dict[str, Any]:
    return {"headers": {"x-api-key": key.removeprefix("key:")}} if key else {"consumer": "admin"}


WRITES = ("batchUpsert", "batchUpsert partial", "import", "import partial")
VALUES_OF = "SELECT party_id, login, badge FROM data.parties WHERE party_id LIKE $1 ORDER BY 1"


@pytest.mark.parametrize("size", [0, 600])  # small batches, and large ones that COPY loads
@pytest.mark.parametrize("way", WRITES)
def test_unique_values_move_between_the_records_of_one_write(
    hub: RunningHub, way: str, size: int
) -> None:
    mark, base = f"m{WRITES.index(way)}{size}-", 10_000_000 + WRITES.index(way) * 10_000 + size

    def party(name: str, login: str, badge: int | None = None) -> tuple[str, str]:
        number = "" if badge is None else str(base + badge)
        return mark + name, f"{mark + login if login else ''},{number}"

    def stored() -> dict[str, tuple[str, int | None]]:
        rows = hub.sql(VALUES_OF, f"{mark}%")
        return {
            key.removeprefix(mark): (login.removeprefix(mark), badge and badge - base)
            for key, login, badge in rows
            if "fill" not in key
        }

    def write(*rows: tuple[str, str]) -> Reply:
        filled = [party(f"fill{i}", f"fill{i}", 1000 + i) for i in range(size)]
        return write_rows(hub, [*rows, *filled], way)

    rows = [party("a", "x", 1), party("b", "y", 2), party("c", "z"), party("d", "w", 4)]
    assert write(*rows).status == 200
    # d is new to x, a and b exchange badges, c gives up its login, and n is new and takes it.
    moved = [party("n", "z", 5), party("a", "", 2), party("b", "y", 1), party("c", "")]
    reply = write(party("d", "x", 4), *moved)
    assert reply.status == 200 and "refusedCount" not in reply.json(), reply.text
    expected: dict[str, tuple[str, int | None]] = {
        **{"a": ("", 2), "b": ("y", 1), "c": ("", None)},
        **{"d": ("x", 4), "n": ("z", 5)},
    }
    assert stored() == expected
    # o keeps the login o, so p cannot take it. q cannot take the badge of p; r gets the one that s
    # gives up.
    assert write(party("o", "o"), party("p", "p"), party("q", "q"), party("s", "s")).status == 200
    rows = [party("p", "o"), party("q", "p"), party("new", "q"), party("r", "s"), party("s", "t")]
    reply = write(*rows)
    if "partial" not in way:
        assert reply.reason == "VALUE_TAKEN", reply.text
        return
    report = reply.json()
    assert report["refusedCount"] == "3", reply.text
    told = [(e["key"].removeprefix(mark), e["field"]) for e in report["rowErrors"]]
    assert told == [("p", "login"), ("q", "login"), ("new", "login")]
    more = {name: (name, None) for name in "opq"}
    assert stored() == expected | more | {"r": ("s", None), "s": ("t", None)}


WRITER = {"dataset": "parties", "actions": ["create", "update"], "classMasks": CLEAR}
#: Writers of parties that cannot read who has a badge: the fields and rows that they may read.
BLIND: dict[str, tuple[list[Any], str]] = {
    "who reads nothing": ([], ""),
    "who reads some records": ([grant("parties", 'party_id >= "t"')], 'party_id >= "t"'),
    "who reads some fields": ([grant("parties", badge="hide")], ""),
}
SEEN = "SELECT query->'taken_unseen' FROM hub.audit_entry WHERE request_id = $1 AND phase = 'CALL'"


@contextlib.contextmanager
def role_of(made: Made, grants: list[Any]) -> Iterator[None]:
    """A second role of a consumer; without grants it has none."""
    name, path = f"{made.name}-more", f"/consumers/{made.name}"
    if grants:
        made.administer("POST", "/roles", {"roleId": name, "grants": grants})
        made.administer("PATCH", path, {"roles": [made.name, name]}, update_mask="roles")
        made.hub.settle()
    yield
    if grants:
        made.administer("PATCH", path, {"roles": [made.name]}, update_mask="roles")
        made.administer("DELETE", f"/roles/{name}")


@pytest.mark.parametrize("who", BLIND)
def test_values_of_hidden_records_are_no_oracle(hub: RunningHub, who: str) -> None:
    base = 20_000_000 + 1000 * list(BLIND).index(who)
    held = [(f"h{base + i}", f",{base + i}") for i in range(20)]
    assert write_rows(hub, held, "import").status == 200
    tried = [(f"t{base + i}", f",{base + i + 12}") for i in range(20)]  # eight of them are in use
    count = "SELECT count(*) FROM data.parties WHERE party_id LIKE $1"
    reading, rows = BLIND[who]
    with consumer_with(hub, {**WRITER, "rowFilter": rows}) as made, role_of(made, reading):
        for way, name in (("import partial", "validate_only"), ("batchUpsert", "validateOnly")):
            dry: dict[str, Any] = {name: True}
            reply = write_rows(hub, tried, way, made.key, **dry)
            assert reply.json()["createdCount"] == "20", reply.text
            assert hub.sql(SEEN, reply.request_id) == [("8",)]
            told = write_rows(hub, tried, way, **dry)
            assert "VALUE_TAKEN" in told.text or told.json()["refusedCount"] == "8", told.text
        one = {"partyId": f"t{base}", "badge": base}
        reply = hub.request(
            "POST",
            "/v1/parties",
            json_body=one,
            query={"validate_only": "true"},
            **caller_with(made.key),
        )
        assert reply.status == 200, reply.text
        reply = write_rows(hub, tried, "import partial", made.key)
        assert (reply.reason, "more than 5" in reply.text) == ("VALUE_TAKEN", True), reply.text
        assert hub.sql(SEEN, reply.request_id) == [("8",)]
        assert hub.sql(count, f"t{base // 1000}%") == [(0,)]
        reply = write_rows(hub, tried[5:], "import partial", made.key)  # three of them are in use
        assert (reply.json()["createdCount"], reply.json()["refusedCount"]) == ("12", "3")
        if who == "who reads some records":  # it learns of the records that it reads
            again = [(f"z{base + i}", f",{base + i + 20}") for i in range(12)]
            for dry in ({"validate_only": True}, {}):
                reply = write_rows(hub, again, "import partial", made.key, **dry)
                assert reply.json()["refusedCount"] == "12", reply.text


#: Sessions that wait for another one to end its transaction.
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
    " AND datname = current_database()"
)


def is_locked(hub: RunningHub, key: str) -> bool:
    """Whether somebody holds a record."""
    try:
        hub.sql("SELECT 1 FROM data.parties WHERE party_id = $1 FOR UPDATE NOWAIT", key)
    except asyncpg.LockNotAvailableError:
        return True
    return False


@pytest.mark.parametrize("way", ["import partial", "batchUpsert partial"])
@pytest.mark.parametrize("dry", [True, False])
def test_nobody_locks_what_he_does_not_see(hub: RunningHub, way: str, dry: bool) -> None:
    """Neither by its key nor, in a write that only validates, by a value that it holds."""
    base = 30_000_000 + 100 * WRITES.index(way) + 10 * dry
    rows = [("l-key", f",{base}"), ("l-value", f",{base + 1}"), ("u-seen", f",{base + 2}")]
    assert write_rows(hub, rows, "import").status == 200
    tried = [("l-key", f",{base + 5}"), ("u-seen", f",{base + 6}"), ("u-slow", f",{base + 7}")]
    tried.append(("u-other", f",{base + 1 if dry else base + 8}"))
    rule = 'party_id >= "t"'
    # The write waits for a record that another transaction inserts, and holds what it has locked.
    slow = (
        "BEGIN; INSERT INTO data.parties SELECT (jsonb_populate_record(p,"
        ' \'{"party_id": "u-slow", "login": "", "badge": null}\')).*'
        " FROM data.parties AS p WHERE party_id = 'l-key'"
    )
    option = {"validate_only" if "import" in way else "validateOnly": True} if dry else {}
    with (
        consumer_with(hub, {**WRITER, "rowFilter": rule}) as made,
        ThreadPoolExecutor(1) as pool,
        hub.holding(slow),
    ):
        writing = pool.submit(write_rows, hub, tried, way, made.key, **option)
        eventually(lambda: hub.sql(WAITING) == [(1,)])
        locked = {key for key in ("l-key", "l-value", "u-seen") if is_locked(hub, key)}
    assert locked == {"u-seen"}, "the control: it holds what it sees"
    assert writing.result().status == 200, writing.result().text
    hub.sql("DELETE FROM data.parties WHERE party_id ~ '^[lu]-' RETURNING 1")


def test_the_error_of_a_race_names_the_field(hub: RunningHub) -> None:
    field = "identifier_in_the_register_of_the_country_of_birth"
    index = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'parties.identifier%~unique'"
    ((name,),) = hub.sql(index)
    assert field not in name, "the name is cut"
    taking = f"INSERT INTO data.parties (party_id, {field}) VALUES ('race', 'race')"
    body = {"partyId": "race2", field: "race"}
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as pool:
        connection = runner.run(asyncpg.connect(hub.dsn))
        try:
            runner.run(connection.execute(f"BEGIN; {taking}"))
            call = pool.submit(hub.request, "POST", "/v1/parties", consumer="admin", json_body=body)
            eventually(lambda: hub.sql(waiting) != [(0,)])
            runner.run(connection.execute("COMMIT"))
            reply = call.result()
        finally:
            runner.run(connection.close())
            hub.sql("DELETE FROM data.parties WHERE party_id = 'race'")
    assert (reply.status, reply.reason) == (409, "VALUE_TAKEN"), reply.text
    assert list(reply.violations()) == [in_json(field)]


SCENE: dict[str, Any] = {
    "title": "A",
    "frames": "9007199254740993",
    "bits": str(2**64 - 1),
    "cost": "0.50",
    "day": "2024-02-29",
    "shotTime": "2024-02-29T12:00:00.123456Z",
    "thumb": "AP8Q",
    "mood": "GLAD",
    "sound": {"name": "bang", "levels": [0.1, 10**300]},
    "noises": [{"name": "x"}, {"levels": [1.5]}],
    "words": {"de": "ä", "": "none"},
    "kept": True,
    "light": 0.1,
}
ODD = "\"<&>', \\=1ö"
#: With the labels of enums, as every surface has them.
FILMS: list[dict[str, Any]] = [
    {
        "filmId": "f1",
        "rating": "PG-13",
        "otherRating": ODD,
        "scenes": [SCENE, {}, {"title": "B", "frames": "-1"}],
        "extras": {"a": SCENE, "b": {}},
        "words": ["b", "", 'q"'],
        "numbers": ["-1", "9007199254740993"],
        "prices": ["0.50", "-1.00"],
        "times": ["2024-02-29T12:00:00.123456Z"],
        "counters": {"-7": 1, "9007199254740993": 2},
        "doubles": [0.1, "NaN", "-Infinity"],
    },
    {"filmId": "f2", "rating": "G", "otherRating": "RATING_UNSPECIFIED"},
    {"filmId": "f3", "rating": ODD, "scenes": [{}]},
    {"filmId": "f4", "otherRating": "NC-17"},
]


def test_labels_of_enums(hub: RunningHub) -> None:
    path = "/v1/films"
    check_everywhere(hub, path, "filmId", FILMS)
    hub.head()  # all writes so far have their numbers, so they come before the place
    place = hub.get(f"{path}:changes", "admin").json()["nextCursor"]
    text = ODD.replace("\\", "\\\\").replace('"', '\\"')
    for query, found in (
        ('rating = "PG-13"', ["f1"]),
        ("rating = PG_13", ["f1"]),
        (f'rating = "{text}"', ["f3"]),
        ('rating != "PG-13"', ["f2", "f3", "f4"]),
        ('other_rating = "NC-17"', ["f4"]),
    ):
        reply = hub.get(path, "admin", filter=query, fields="film_id").json()
        assert [r["filmId"] for r in reply["films"]] == found, query
    assert hub.get(path, "admin", filter='rating = "PG-14"').status == 400
    text = hub.get(f"{path}:export", "admin", format="CSV", fields="film_id,rating").text
    shown = {r["film_id"]: r["rating"] for r in csv.DictReader(io.StringIO(text, newline=""))}
    assert shown == {"f1": "PG-13", "f2": "G", "f3": ODD, "f4": "RATING_UNSPECIFIED"}
    for spelled in ("NC-17", "NC_17", 3):
        body = {"rating": spelled}
        reply = hub.request("PATCH", f"{path}/f4", consumer="admin", json_body=body)
        assert (reply.status, reply.json()["rating"]) == (200, "NC-17")
        hub.request("PATCH", f"{path}/f4", consumer="admin", json_body={"rating": "G"})
        file = f"film_id,rating\nf4,{spelled}\n".encode()
        reply = hub.request("POST", f"{path}:import?format=CSV", consumer="admin", body=file)
        assert reply.json() == {"rowCount": "1", "updatedCount": "1"}, reply.text
        assert hub.get(f"{path}/f4", "admin").json()["rating"] == "NC-17"
    assert hub.sql("SELECT rating FROM data.films WHERE film_id = 'f4'") == [("NC-17",)]
    told = hub.get(f"{path}:changes", "admin", cursor=place, wait="30s").json()["changes"]
    assert told[-1]["after"]["rating"] in ("G", "NC-17")
    schema = hub.get("/v1/datasets/films/schema.xsd", "admin").text
    assert 'value="PG-13"' in schema


def test_lists_and_maps_are_nested_types(hub: RunningHub) -> None:
    """Nested types for other tools; JSON on request."""
    path = "/v1/films"
    for record in FILMS:
        hub.request("DELETE", f"{path}/{record['filmId']}", consumer="admin")
        assert hub.request("POST", path, consumer="admin", json_body=record).status == 200
    for name, verb in (("PARQUET", "export"), ("ARROW", "export"), ("PARQUET", "exportPage")):
        reply = hub.get(f"{path}:{verb}", "admin", format=name)
        assert reply.status == 200, reply.text
        source = pyarrow.BufferReader(reply.body)
        table = (
            pyarrow.parquet.read_table(source)
            if name == "PARQUET"
            else pyarrow.ipc.open_stream(source).read_all()
        )
        kinds = {f.name: f.type for f in table.schema}
        scene = kinds["scenes"].value_type
        assert pyarrow.types.is_struct(scene) and pyarrow.types.is_map(kinds["extras"])
        assert scene.field("frames").type == pyarrow.int64()
        assert scene.field("cost").type == pyarrow.decimal128(12, 3)
        assert scene.field("shot_time").type == pyarrow.timestamp("us", "UTC")
        assert kinds["numbers"].value_type == pyarrow.int64()
        first = table.to_pylist()[0]
        assert first["numbers"] == [-1, 9007199254740993]
        assert first["scenes"][0]["sound"] == {"name": "bang", "levels": [0.1, 1e300]}
        assert first["scenes"][0]["cost"] == Decimal("0.500")
        assert first["scenes"][1]["sound"] is None
        assert first["counters"] == [(-7, 1), (9007199254740993, 2)]
        reply = hub.get(f"{path}:{verb}", "admin", format=name, nested="json")
        imported = hub.request(
            "POST", f"{path}:import?format={name}", consumer="admin", body=reply.body
        )
        assert imported.json() == {"rowCount": "4", "unchangedCount": "4"}, imported.text
    source = pyarrow.BufferReader(
        hub.get(f"{path}:export", "admin", format="PARQUET", nested="JSON").body
    )
    texts = pyarrow.parquet.read_table(source)["numbers"].to_pylist()
    assert json.loads(texts[0]) == FILMS[0]["numbers"]
    for query in ({"format": "CSV", "nested": "json"}, {"format": "ARROW", "nested": "xml"}):
        assert list(hub.get(f"{path}:export", "admin", **query).violations()) == ["nested"]


def test_replicas_of_the_nasty_models_are_proved_equal(hub: RunningHub) -> None:
    """The SDK computes the same digests of records as the hub, from the messages alone."""
    with folder() as made:
        for name in ("films", "parties", "receipts", "voyages", "stops"):
            target = f"{made}/{name}.db"
            done = hub.command("replica", name, "--to", target, check=False)
            assert done.returncode == 0, done.stderr
            done = hub.command("verify", name, "--replica", target, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


VOYAGES: list[dict[str, Any]] = [
    {"voyageId": "-9223372036854775808", "ship": "least"},
    {"voyageId": "-1"},
    {"voyageId": "0", "ship": "no number"},
    {"voyageId": "9", "previousId": "-1"},
    {"voyageId": "10", "previousId": "0", "logbook": "ten"},
    {"voyageId": "9007199254740993", "ship": "beyond a double"},
    {"voyageId": "9223372036854775807", "previousId": "9223372036854775807"},
]
#: Harbours, and what they are in the text of a key.
HARBOURS = {
    "Ulm": "Ulm",
    "a~b": "a%7Eb",
    "a%7Eb": "a%257Eb",
    "100%": "100%25",
    "/": "/",
    "..": "..",
    "ä ?#&+": "ä ?#&+",
}
STOPS: list[dict[str, Any]] = [
    *({"voyageId": "10", "harbour": harbour, "call": "1"} for harbour in HARBOURS),
    {"voyageId": "10", "harbour": "Ulm", "call": "0", "fee": "1.50"},
    {"voyageId": "10", "harbour": "Ulm", "call": "18446744073709551615"},
    {"voyageId": "9", "harbour": "Ulm", "call": "2", "cargo": "coal"},
    {"voyageId": "-1", "harbour": "Ulm", "call": "9223372036854775808"},
]


def without_zero(record: dict[str, Any]) -> dict[str, Any]:
    """A record as pages show it, without the numbers that are 0."""
    return {name: value for name, value in record.items() if value != "0"}


def voyage_key(record: dict[str, Any]) -> str:
    return str(record.get("voyageId", "0"))


def stop_key(record: dict[str, Any]) -> str:
    harbour = HARBOURS[record["harbour"]]
    return f"{voyage_key(record)}~{harbour}~{record.get('call', '0')}"


def test_keys_that_are_numbers_or_have_several_parts(hub: RunningHub) -> None:
    check_everywhere(hub, "/v1/voyages", voyage_key, [without_zero(r) for r in VOYAGES])
    check_everywhere(hub, "/v1/stops", stop_key, [without_zero(r) for r in STOPS])
    order = [voyage_key(r) for r in VOYAGES]
    for path, key_of, keys in (
        ("/v1/voyages", voyage_key, order),
        ("/v1/stops", stop_key, sorted(map(stop_key, STOPS), key=stop_order)),
    ):
        name = path.rpartition("/")[2]
        for query, wanted in (({}, keys), ({"order_by": "voyage_id desc"}, keys[::-1])):
            found: list[str] = []
            token = ""
            while token or not found:
                page = hub.get(path, "admin", page_size=2, page_token=token, **query).json()
                found += [key_of(r) for r in page[name]]
                token = page.get("nextPageToken", "")
            assert found == wanted, "numbers are listed in the order of numbers"
        rows = hub.get(f"{path}:export", "admin", format="NDJSON").text
        assert [key_of(json.loads(line)) for line in rows.splitlines()] == keys
        pages, token = "", ""
        while token or not pages:
            asked = {"format": "NDJSON", "page_size": 3, "page_token": token}
            part = hub.get(f"{path}:exportPage", "admin", **asked)
            pages, token = pages + part.text, part.headers.get("penstock-next-page-token", "")
        assert pages == rows
        digest = hub.get(f"{path}:digest", "admin", keys="true").json()
        assert [r["key"] for r in digest["ranges"][0]["records"]] == sorted(keys)
        # What PostgreSQL makes of the fields is what the hub made of them.
        assert sorted(k for (k,) in hub.sql(f'SELECT "~key" FROM data.{name}')) == sorted(keys)
    for text, count in (
        ("voyage_id > 9", 9),
        ("voyage_id = 9", 1),
        ('harbour = "a~b"', 1),
        ("call >= 9223372036854775808", 2),
        ("voyage_id:*", 11),
    ):
        reply = hub.get("/v1/stops", "admin", filter=text).json()
        assert len(reply["stops"]) == count, text


def stop_order(key: str) -> tuple[int, str, int]:
    voyage, harbour, call = key.split("~")
    return int(voyage), harbour.replace("%7E", "~").replace("%25", "%"), int(call)


def send(hub: RunningHub, verb: str, path: str, body: Any = None, **query: Any) -> Reply:
    """A call of an administrator."""
    return hub.request(verb, path, consumer="admin", json_body=body, query=query)


def test_a_key_has_one_spelling_and_stays(hub: RunningHub) -> None:
    voyage, stop = {"voyageId": "70", "ship": "one"}, {"voyageId": "70", "harbour": "%~", "call": 7}
    for path, record in (("/v1/voyages", voyage), ("/v1/stops", stop)):
        send(hub, "DELETE", f"{path}/70", allow_missing="true")
        assert send(hub, "POST", path, record).status == 200
        twice = send(hub, "POST", path, record)
        assert (twice.status, twice.reason) == (409, "RECORD_EXISTS"), twice.text
    key = "70~%25%7E~7"
    assert send(hub, "GET", f"/v1/stops/{quote(key, safe='')}").json()["call"] == "7"
    others = {
        "/v1/voyages": ("+70", "070", " 70", "70.0", "0x46", "7e1", "70~", "-0", "9" * 30),
        "/v1/stops": (
            "70~%~~7",
            "70~%25~~7",
            "70~%25%7e~7",
            "70~%25%7E~07",
            "70~%25%7E",
            f"{key}~",
        ),
    }
    for path, spellings in others.items():
        for spelling in spellings:
            place = f"{path}/{quote(spelling, safe='')}"
            assert send(hub, "GET", place).status == 404, spelling
            assert send(hub, "DELETE", place).status == 404, spelling
            reply = send(hub, "PATCH", place, {"sourceId": "s"}, allow_missing="true")
            assert (reply.status, list(reply.violations())) == (400, ["key"]), reply.text
    # The same key may stand in the record, and no other one.
    for place, same, other in (
        ("/v1/voyages/70", {"voyageId": "70"}, {"voyageId": "71"}),
        (f"/v1/stops/{quote(key, safe='')}", {"harbour": "%~"}, {"harbour": "%7E"}),
        (f"/v1/stops/{quote(key, safe='')}", {"call": "7"}, {"call": "8"}),
    ):
        changed = send(hub, "PATCH", place, {**same, "sourceId": "changed"})
        assert changed.json()["sourceId"] == "changed", changed.text
        refused = send(hub, "PATCH", place, {**other, "sourceId": "moved"})
        assert refused.status == 400 and "differs from the key" in refused.text
        named = send(hub, "PATCH", place, other, update_mask=",".join(["source_id", *other]))
        assert named.status == 400, named.text
    made = send(hub, "PATCH", "/v1/stops/70~new~0", {"cargo": "c"}, allow_missing="true")
    assert (made.status, made.json()["harbour"]) == (200, "new"), made.text
    assert send(hub, "DELETE", "/v1/stops/70~new~0").status == 200


def test_keys_that_lack_a_part_are_refused(hub: RunningHub) -> None:
    path = "/v1/stops"
    for body, field in (
        ({"voyageId": "1", "call": "1"}, "harbour"),
        ({"voyageId": "1", "harbour": "a\u0000b"}, "harbour"),
        ({"voyageId": "1", "harbour": "a\nb"}, "harbour"),
        ({"voyageId": "1", "harbour": "h" * 511}, "voyage_id"),
    ):
        reply = send(hub, "POST", path, body)
        assert reply.status == 400 and field in reply.text, (body, reply.text)
        batch = send(hub, "POST", f"{path}:batchUpsert", {"stops": [body]})
        assert batch.status == 400 and field in batch.text, batch.text
    files = {
        "CSV": 'voyage_id,harbour,call\n,Ulm,1\n1,,1\n1,Ulm,\n1,"",1\n01,Ulm,1\n',
        "NDJSON": "\n".join(
            json.dumps({n: v for n, v in row.items() if v is not None})
            for row in (
                {"voyageId": None, "harbour": "Ulm", "call": 1},
                {"voyageId": 1, "harbour": None, "call": 1},
                {"voyageId": 1, "harbour": "Ulm", "call": None},
                {"voyageId": 1, "harbour": "", "call": "1"},
                {"voyageId": "01", "harbour": "Ulm", "call": "1"},
            )
        ),
    }
    for name, text in files.items():
        place = f"{path}:import?format={name}&partial=true&validate_only=true"
        reply = hub.request("POST", place, consumer="admin", body=text.encode())
        told = [(e["row"], e["field"]) for e in reply.json()["rowErrors"]]
        expected = [("1", "voyage_id"), ("2", "harbour"), ("3", "call"), ("4", "harbour")]
        # A file may write a number with zeros: its key has none.
        assert told == expected and reply.json()["createdCount"] == "1", (name, reply.text)
    file = b"voyage_id,harbour\n1,Ulm\n"
    reply = hub.request("POST", f"{path}:import?format=CSV", consumer="admin", body=file)
    assert "lacks the key column 'call'" in reply.text
    twice = {"stops": [{"voyageId": "1", "harbour": "x"}, {"voyageId": 1, "harbour": "x"}]}
    assert "occurs twice" in send(hub, "POST", f"{path}:batchUpsert", twice).text
    rows = b"voyage_id,harbour,call\n1,x,1\n01,x,1\n"
    reply = hub.request("POST", f"{path}:import?format=CSV", consumer="admin", body=rows)
    assert "occurs twice" in reply.text, reply.text


def test_access_to_records_with_keys_of_numbers(hub: RunningHub) -> None:
    """Row rules follow references that are numbers, and feeds tell what enters and leaves."""
    for name, ship in (("80", "seen"), ("81", "hidden"), ("82", "seen")):
        send(hub, "DELETE", f"/v1/voyages/{name}", allow_missing="true")
        assert send(hub, "POST", "/v1/voyages", {"voyageId": name, "ship": ship}).status == 200
        stop = {"voyageId": name, "harbour": "Bonn", "cargo": "secret"}
        send(hub, "DELETE", f"/v1/stops/{name}~Bonn~0", allow_missing="true")
        assert send(hub, "POST", "/v1/stops", stop).status == 200
    rule = 'voyage.ship = "seen"'
    classes = {"PUBLIC": "clear", "INTERNAL": "clear", "SENSITIVE": "hide"}
    with consumer_with(hub, grant("stops", rule, classes)) as made:
        caller = caller_with(made.key)
        hub.head()
        place = hub.request("GET", "/v1/stops:changes", **caller).json()["nextCursor"]
        listed = hub.request("GET", "/v1/stops", **caller).json()["stops"]
        assert [stop_key_of(r) for r in listed] == ["80~Bonn~0", "82~Bonn~0"]
        assert all("cargo" not in r for r in listed)
        assert hub.request("GET", "/v1/stops/81~Bonn~0", **caller).status == 404
        refused = hub.request("GET", "/v1/stops?filter=cargo%3D%22secret%22", **caller)
        assert refused.reason == "FIELD_UNKNOWN", "a hidden field does not exist"
        refused = hub.request("PATCH", "/v1/stops/no-key", json_body={}, **caller)
        assert refused.status == 403, "who may not write learns nothing of keys"
        send(hub, "PATCH", "/v1/voyages/80", {"ship": "hidden"})
        send(hub, "PATCH", "/v1/voyages/81", {"ship": "seen"})
        send(hub, "PATCH", "/v1/stops/82~Bonn~0", {"sourceId": "s"})
        hub.head()
        told = hub.request("GET", f"/v1/stops:changes?cursor={place}&wait=30s", **caller).json()
        assert [(c["operation"], c["key"]) for c in told["changes"]] == [
            ("LEFT_VIEW", "80~Bonn~0"),
            ("ENTERED_VIEW", "81~Bonn~0"),
            ("UPDATED", "82~Bonn~0"),
        ]
        for field in ("voyage_id", "harbour"):
            hidden = grant("stops", "", CLEAR, **{field: "hide"})
            reply = send(hub, "PATCH", f"/v1/access/roles/{made.name}", {"grants": [hidden]})
            assert reply.status == 400 and "the key is always clear" in reply.text, reply.text


def test_feeds_follow_references_that_are_numbers(hub: RunningHub) -> None:
    for name, ship in (("60", "seen"), ("61", "hidden"), ("62", "other")):
        send(hub, "DELETE", f"/v1/voyages/{name}", allow_missing="true")
        record = {"voyageId": name, "ship": ship, "previousId": "60"}
        assert send(hub, "POST", "/v1/voyages", record).status == 200
    with consumer_with(hub, grant("voyages", 'previous.ship = "seen"')) as made:
        caller = caller_with(made.key)
        hub.head()
        place = hub.request("GET", "/v1/voyages:changes", **caller).json()["nextCursor"]
        send(hub, "PATCH", "/v1/voyages/62", {"previousId": "61"})
        send(hub, "PATCH", "/v1/voyages/61", {"ship": "seen"})
        send(hub, "PATCH", "/v1/voyages/60", {"ship": "hidden"})
        hub.head()
        found: list[tuple[str, str]] = []
        while len(found) < 5:
            url = f"/v1/voyages:changes?cursor={place}&wait=30s"
            page = hub.request("GET", url, **caller).json()
            found += [(c["operation"], c["key"]) for c in page["changes"]]
            place = page["nextCursor"]
        # 60 and 61 refer to 60, and 62 to 61 from the first change on.
        assert found[:3] == [("LEFT_VIEW", "62"), ("UPDATED", "61"), ("ENTERED_VIEW", "62")]
        assert sorted(found[3:]) == [("LEFT_VIEW", "60"), ("LEFT_VIEW", "61")]
        assert [
            r["voyageId"] for r in hub.request("GET", "/v1/voyages", **caller).json()["voyages"]
        ] == ["62"]


def stop_key_of(record: dict[str, Any]) -> str:
    return f"{record['voyageId']}~{record['harbour']}~{record.get('call', '0')}"


def test_webhooks_and_commands_take_such_keys(hub: RunningHub) -> None:
    key = "90~a%7E%25~3"
    send(hub, "DELETE", f"/v1/stops/{quote(key, safe='')}", allow_missing="true")
    hub.head()
    document = {"url": "", "kind": "LISTEN", "selections": [{"dataset": "stops"}]}
    webhook = send(hub, "POST", "/v1/webhooks", document).json()["webhook"]
    place = f"/v1/webhooks/{webhook['webhookId']}"
    record = {"voyage_id": "90", "harbour": "a~%", "call": 3}
    assert hub.command("create", "stops", "--data", json.dumps(record)).returncode == 0
    shown = json.loads(hub.command("get", "stops", key).stdout)
    assert (shown["harbour"], shown["call"]) == ("a~%", "3")
    changed = hub.command("update", "stops", key, "--data", '{"cargo": "coal"}').stdout
    assert json.loads(changed)["cargo"] == "coal"
    other = hub.command("update", "stops", key, "--data", '{"call": 4, "cargo": ""}', check=False)
    assert other.returncode == 1 and b"differs from the key" in other.stderr
    hub.command("delete", "stops", key)
    told: list[Any] = []

    def all_told() -> bool:
        found = send(hub, "POST", f"{place}:pull", {"wait": "20s"}).json().get("deliveries", [])
        told.extend(json.loads(base64.b64decode(d["body"])) for d in found)
        outcomes = [
            {"deliveryId": d["deliveryId"], "status": 200, "latency": "0.01s"} for d in found
        ]
        if outcomes:
            send(hub, "POST", f"{place}:acknowledge", {"outcomes": outcomes})
        return len(told) >= 3

    eventually(all_told)
    send(hub, "DELETE", place)
    by_type = {e["type"]: e["data"] for e in told}
    assert by_type.keys() == {"stop.created", "stop.updated", "stop.deleted"}
    assert {data["key"] for data in by_type.values()} == {key}
    assert by_type["stop.updated"]["record"]["harbour"] == "a~%"
    for asked, disclosed in ((key, True), (f"{key}0", False)):
        audited = hub.command("audit", "disclosures", "stops", asked, "--format", "json").stdout
        assert (b"GetStop" in audited) == disclosed, "the audit has the keys of what was given"
