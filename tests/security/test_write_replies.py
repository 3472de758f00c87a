"""A reply to a write shows no more of a record than its caller may read now.

Every writing method of every dataset, with callers that may write more than they may read.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from harness import Reply, RunningHub
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors

from .marked import RECORDS, key_field

CLEAR = dict.fromkeys(("PUBLIC", "INTERNAL", "PII", "SENSITIVE"), "clear")
MASKED = {"PUBLIC": "clear", "INTERNAL": "clear", "PII": "partial", "SENSITIVE": "hide"}
WRITES = ["create", "update", "delete"]
#: A text that others write into a record, for callers that do not see it.
LATER = "zqlater"

#: Role -> actions, masks, row filter; on every dataset.
ROLES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "wr-all": (["read", *WRITES], CLEAR, ""),
    "wr-update": (["update"], CLEAR, ""),
    "wr-create": (["create"], CLEAR, ""),
    "wr-write": (WRITES, CLEAR, ""),
    "wr-read-masked": (["read"], MASKED, ""),
    "wr-read-nothing": (["read"], CLEAR, 'source = "nobody"'),
}
#: Caller -> roles, and the scope of its token if it has one.
CALLERS: dict[str, tuple[list[str], str]] = {
    "update": (["wr-update"], ""),
    "create": (["wr-create"], ""),
    "write": (["wr-write"], ""),
    "masked": (["wr-write", "wr-read-masked"], ""),
    "unseen": (["wr-write", "wr-read-nothing"], ""),
    "scope-update": (["wr-all"], "*:update"),
    "scope-create": (["wr-all"], "*:create"),
    "scope-write": (["wr-all"], "*:create *:update *:delete"),
}


@dataclass(frozen=True)
class Caller:
    """A caller with credentials of its own."""

    hub: RunningHub
    name: str
    headers: Mapping[str, str]

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> Reply:
        """One call."""
        own = dict(self.headers)
        return self.hub.request(method, path, json_body=body, headers=own, query=query)


@pytest.fixture(scope="module")
def callers(marked_hub: RunningHub) -> dict[str, Caller]:
    """All of CALLERS, and "all", which may do everything."""
    hub = marked_hub

    def admin(path: str, body: Any) -> Any:
        reply = hub.request("POST", f"/v1/access/{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    for role, (actions, masks, rows) in ROLES.items():
        grants = [
            {"dataset": d, "actions": actions, "classMasks": masks, "rowFilter": rows}
            for d in RECORDS
        ]
        admin("roles", {"roleId": role, "grants": grants})
    found = {}
    for name, (roles, scope) in {**CALLERS, "all": (["wr-all"], "")}.items():
        consumer = f"wr-{name}"
        admin("consumers", {"consumerId": consumer, "roles": roles, "active": True})
        kind = "CLIENT_SECRET" if scope else "API_KEY"
        secret = admin(f"consumers/{consumer}/credentials", {"kind": kind})["secret"]
        hub.settle()
        headers = bearer(hub, consumer, secret, scope) if scope else {"x-api-key": secret}
        found[name] = Caller(hub, name, headers)
        if scope:  # the same consumer, limited by its roles
            found[f"{name}-whole"] = Caller(hub, name, bearer(hub, consumer, secret, ""))
    return found


def bearer(hub: RunningHub, consumer: str, secret: str, scope: str) -> dict[str, str]:
    form = {"grant_type": "client_credentials", "client_id": consumer, "client_secret": secret}
    form |= {"scope": scope} if scope else {}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = hub.request("POST", "/oauth2/token", body=urlencode(form).encode(), headers=headers)
    assert reply.status == 200, reply.text
    return {"authorization": f"Bearer {reply.json()['access_token']}"}


# --- what may be shown ------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The path and value of everything in a JSON object that is not an object."""
    if isinstance(value, dict):
        for name, held in value.items():
            yield from leaves(held, f"{path}.{name}" if path else name)
    else:
        yield path, value


def check(shown: Any, read: Reply, sent: Mapping[str, Any], key: str) -> None:
    """Check that the reply shows what the caller reads; otherwise only the key, the etag and what
    it sent."""
    known = dict(leaves(read.json())) if read.status == 200 else {}
    given = dict(leaves(sent))
    for path, value in leaves(shown):
        if value is None and path in ("updateTime", "etag"):
            continue  # a call that only validates shows neither
        if read.status == 200:
            assert (path, value) in known.items(), f"{path} reads {known.get(path)!r}, not {value}"
        elif path != "etag" and value:
            wanted = given.get(path) if path != key else value
            assert value == wanted, f"{path}: {value!r} was not sent"


def refused(reply: Reply, *values: str) -> str:
    """The reason of an error, which must contain none of the values."""
    assert reply.status >= 400, reply.text
    for value in values:
        assert value not in reply.text, f"{value} in {reply.text}"
    return reply.reason


def fresh(callers: Mapping[str, Caller], dataset: str) -> dict[str, Any]:
    """A new record of the dataset with a value in every class of field."""
    record = {**RECORDS[dataset][0], key_field(dataset): f"wr-{uuid.uuid4().hex[:12]}"}
    reply = callers["all"]("POST", f"/v1/{dataset}", record)
    assert reply.status == 200, reply.text
    whole: dict[str, Any] = reply.json()
    return whole


def sendable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it can be sent."""
    own = ("createTime", "updateTime", "etag")
    return {k: v for k, v in record.items() if k not in own}


# --- the walk ---------------------------------------------------------------------------------


def test_the_walk_leaves_no_writing_method_out() -> None:
    catalog = load_catalog(find_descriptors().read_bytes())
    assert {d.name for d in catalog} == set(RECORDS)
    for dataset in catalog:
        name = "".join(part.capitalize() for part in dataset.name.split("_"))
        service = catalog.pool.FindServiceByName(f"penstock.api.v1.{name}")
        writes = {m.name for m in service.methods if "request_id" in m.input_type.fields_by_name}
        one, many = dataset.message_type.name, name
        assert writes == {
            *(f"{verb}{one}" for verb in ("Create", "Update", "Delete")),
            *(f"{verb}{many}" for verb in ("BatchUpsert", "Import")),
        }, "a method that writes is not in this walk"


def may(caller: str, action: str) -> bool:
    """Whether a caller may do it."""
    roles, scope = CALLERS[caller]
    if scope:
        return f"*:{action}" in scope
    return any(action in ROLES[role][0] for role in roles)


@pytest.mark.parametrize("dataset", list(RECORDS))
@pytest.mark.parametrize("name", list(CALLERS))
def test_replies(callers: dict[str, Caller], dataset: str, name: str) -> None:
    caller, everyone = callers[name], callers["all"]
    path, key = f"/v1/{dataset}", key_field(dataset)
    record = fresh(callers, dataset)
    place = f"{path}/{record[key]}"
    hidden = [str(v) for p, v in leaves(record) if "zq" in str(v)] or [record["source"]]

    if reads_all(name, dataset):
        check(record, caller("GET", place), {}, key)
    else:
        with pytest.raises(AssertionError):  # the contents of the write's own View
            check(record, caller("GET", place), {}, key)

    if may(name, "update"):
        for body, query in (
            ({}, {}),
            ({}, {"validate_only": "true"}),
            ({"source": "written"}, {"validate_only": "true"}),
            ({"source": "written"}, {}),
            ({"source": "masked"}, {"update_mask": "source"}),
        ):
            reply = caller("PATCH", place, body, **query)
            assert reply.status == 200, reply.text
            shown = reply.json()
            if query.get("validate_only") and body:
                assert shown.pop("source") == "written", "what would be there"
                for moving in ("updateTime", "etag"):
                    told = shown.pop(moving, "")
                    assert not told or reads_all(name, dataset), "it reveals hidden values"
            check(shown, caller("GET", place), body, key)
        etag = everyone("GET", place).json()["etag"]
        reply = caller("PATCH", place, {"source": "x"}, etag="1")
        assert refused(reply, *hidden, *unreadable(caller, place, etag)) == "ETAG_MISMATCH"
    if may(name, "delete"):
        reply = caller("DELETE", place, etag="1")
        assert refused(reply, *hidden, *unreadable(caller, place, etag)) == "ETAG_MISMATCH"
    if may(name, "create"):
        new = {**sendable(record), key: f"wr-{uuid.uuid4().hex[:12]}"}
        for query in ({"validate_only": "true"}, {}):
            reply = caller("POST", path, new, **query)
            assert reply.status == 200, reply.text
            read = caller("GET", f"{path}/{new[key]}")
            if not query or caller("GET", place).status != 200:
                check(reply.json(), read, new, key)
        assert refused(caller("POST", path, {**new, "source": "x"}), *hidden) == "RECORD_EXISTS"


def reads_all(name: str, dataset: str) -> bool:
    """Whether nothing is hidden from a caller: products have no field that "masked" masks."""
    return (name, dataset) == ("masked", "products")


def unreadable(caller: Caller, place: str, etag: str) -> list[str]:
    """The etag of a record that the caller may not read."""
    return [] if caller("GET", place).status == 200 else [f"'{etag}'"]


@pytest.mark.parametrize("dataset", list(RECORDS))
@pytest.mark.parametrize("name", [n for n in CALLERS if may(n, "create")])
def test_replays_tell_nothing_of_what_others_wrote(
    callers: dict[str, Caller], dataset: str, name: str
) -> None:
    """A create and an update, each repeated after others have written to the record."""
    caller, everyone = callers[name], callers["all"]
    first = callers.get(f"{name}-whole", caller)
    path, key = f"/v1/{dataset}", key_field(dataset)
    new = {key: f"wr-{uuid.uuid4().hex[:12]}", **({"name": "n"} if dataset == "customers" else {})}
    new = {**sendable(fresh(callers, dataset)), **new, "source": "first"}
    place = f"{path}/{new[key]}"
    calls: list[tuple[str, str, dict[str, Any], str]] = [("POST", path, new, str(uuid.uuid4()))]
    if may(name, "update"):
        calls.append(("PATCH", place, {"source": "second"}, str(uuid.uuid4())))
    for method, where, body, request_id in calls:
        reply = first(method, where, body, request_id=request_id)
        assert reply.status == 200, reply.text
    assert everyone("PATCH", place, {"source": LATER, "sourceId": LATER}).status == 200
    for method, where, body, request_id in calls:
        reply = caller(method, where, body, request_id=request_id)
        assert reply.headers.get("penstock-replayed") == "true", reply.text
        if caller("GET", place).status != 200:
            check(reply.json(), caller("GET", place), body, key)
        assert LATER not in reply.text, "what others wrote since"
    assert LATER in everyone("GET", place).text, "negative control: it is there to be told"


@pytest.mark.parametrize("dataset", list(RECORDS))
@pytest.mark.parametrize("name", [n for n in CALLERS if may(n, "create") and may(n, "update")])
def test_counts_do_not_tell_what_a_record_held(
    callers: dict[str, Caller], dataset: str, name: str
) -> None:
    """Guesses of hidden values, many in one call that changes nothing: no reply confirms one."""
    path, key = f"/v1/{dataset}", key_field(dataset)
    right = sendable(fresh(callers, dataset))
    wrong = {**sendable(fresh(callers, dataset)), "source": "wrong"}

    def told(caller: Caller, record: dict[str, Any], way: str) -> dict[str, Any]:
        if way == "batchUpsert":
            reply = caller("POST", f"{path}:{way}", {dataset: [record]}, validate_only="true")
        else:
            query = urlencode({"format": "NDJSON", "validate_only": "true"})
            reply = caller.hub.request(
                *("POST", f"{path}:{way}?{query}"),
                body=json.dumps(record).encode(),
                headers=caller.headers,
            )
        assert reply.status == 200, reply.text
        counts: dict[str, Any] = reply.json()
        return counts

    if dataset == "products":  # a record with every field set
        right |= {"source": "right"}
        assert callers["all"]("PATCH", f"{path}/{right[key]}", right).status == 200
    for way in ("batchUpsert", "import"):
        same = told(callers[name], right, way) == told(callers[name], wrong, way)
        assert same is not reads_all(name, dataset), way
        seer = callers["all"]
        assert told(seer, right, way) != told(seer, wrong, way), "negative control: who reads knows"
    place = f"{path}/{right[key]}"
    replies = [
        callers[name]("PATCH", place, {"source": source}, validate_only="true").json()
        for source in (right["source"], "wrong")
    ]
    if callers[name]("GET", place).status != 200:
        for reply in replies:
            reply.pop("source", None)
        assert replies[0] == replies[1], "an etag tells"
