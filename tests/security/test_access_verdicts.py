"""Explanations agree with reads: random sets of roles, explained and read through the View."""

from __future__ import annotations

import hmac
import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from chance import SEED
from harness import RunningHub
from penstockd.catalog import Catalog, Dataset, Field, FieldClass
from penstockd.errors import PermissionDenied
from penstockd.installation import read_catalog
from penstockd.policy.decision import FieldDecision, decide_field
from penstockd.policy.explain import explain_policy
from penstockd.policy.masks import fits_mask
from penstockd.policy.model import Action, Grant, Mask, Principal, Role
from penstockd.policy.read import Get, Page
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.database import Connection, Database
from penstockd.store.tables import Tables

KEY = b"a key of masks in this test alone"
ROUNDS = 40
FILTERS = {
    "customers": ["", "status = ACTIVE", "kind = COMPANY", "source = claims.source", "NOT email:*"],
    "orders": ["", "customer.status = ACTIVE", "status != CANCELLED", "customer.kind = PERSON"],
}


def draw_grant(rng: random.Random, role: str, dataset: Dataset) -> Grant:
    """A random grant with masks on classes, messages and fields, valid or not."""
    messages = {f.path.rpartition(".")[0] for f in dataset.every_field} - {""}
    paths = [f.path for f in dataset.every_field] + sorted(messages)
    actions = {a for a in Action if rng.random() < 0.5} | {
        rng.choice([Action.READ, Action.READ, Action.UPDATE])
    }
    return Grant(
        role,
        dataset.name,
        frozenset(actions),
        {c: rng.choice(list(Mask)) for c in FieldClass if rng.random() < 0.75},
        {path: rng.choice(list(Mask)) for path in rng.sample(paths, rng.randint(0, 5))},
        rng.choice(FILTERS[dataset.name]),
    )


def draw_policy(rng: random.Random, catalog: Catalog, tables: Tables) -> PolicySnapshot:
    roles = [
        Role(name, "", (draw_grant(rng, name, catalog[dataset]),))
        for name in ("a", "b", "c")
        for dataset in [rng.choice(list(FILTERS))]
    ]
    grants = {r.role_id: r.grants for r in roles}
    return PolicySnapshot(1, {}, {}, grants, {}, catalog, tables, KEY)


def masked(value: Any, verdict: FieldDecision) -> Any:
    """The text after a mask, by the words of the mask's description."""
    if value is None or verdict.mask is Mask.NULL:
        return None
    if verdict.mask is Mask.HASH:
        domains = sorted({g.role for g, d in verdict.says if d.mask is Mask.HASH})
        key = hmac.digest(KEY, b"hash domain\n" + "\n".join(domains).encode(), "sha256")
        return hmac.digest(key, value.encode(), "sha256").hex()
    if verdict.mask is Mask.PARTIAL:
        first, at, domain = value.partition("@")
        plain = first and domain and value.isascii() and not set(value) & set(" ,()")
        return value[:1] + "***" + at + domain if plain else "***"
    return value


def left_of(
    field: Field, whole: Any, verdicts: Mapping[Field, FieldDecision]
) -> list[dict[str, Any]]:
    """What remains of a list of messages by the verdicts on its members, none of which is
    nested."""
    found = []
    for item in whole:
        left = {}
        for member in field.members:
            name, verdict = member.json_steps[-1], verdicts[member]
            if name in item and verdict.mask not in (Mask.HIDE, Mask.NULL):
                left[name] = masked(item[name], verdict)
        found.append(left)
    return found


async def rows_of(connection: Connection, page: Page) -> dict[str, Sequence[Any]]:
    """All rows of a page, by key."""
    statement = page.statement(None)
    rows = await connection.fetch(statement.text, *statement.arguments(limit=100_000, room=1 << 40))
    return {row[-2]: tuple(row)[: page.width] for row in rows}


async def test_verdicts_are_what_is_read(hub: RunningHub) -> None:
    print(f"seed {SEED}")
    seen = await compare(hub, random.Random(SEED), ROUNDS)
    assert all(count > ROUNDS / 4 for count in seen.values()), f"every mask had its turn: {seen}"


@pytest.mark.parametrize("lie", ["generous", "all rows", "writable"])
async def test_a_wrong_verdict_would_be_found(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """Negative control: explanations that are wrong in one point."""

    def lying(*arguments: Any) -> Any:
        answer = explain_policy(*arguments)
        fields = answer.fields
        if lie == "generous":
            fields = tuple(
                replace(f, decision=decide_field(f.field, [[g] for g, _ in f.decision.says][:1]))
                for f in fields
            )
        elif lie == "writable":
            fields = tuple(replace(f, writable=f.decision.mask is Mask.CLEAR) for f in fields)
        rows = answer.rows
        if lie == "all rows":
            rows = tuple(replace(r, grant=replace(r.grant, row_filter="")) for r in rows)
        return replace(answer, fields=fields, rows=rows)

    monkeypatch.setitem(globals(), "explained", lying)
    with pytest.raises(AssertionError):
        await compare(hub, random.Random(7), ROUNDS)


#: The datasets to test.
explained = explain_policy


async def compare(hub: RunningHub, rng: random.Random, rounds: int) -> dict[Mask, int]:
    """Compare explanations with reads; returns how often each mask occurred."""
    catalog = read_catalog()
    tables, database = Tables(catalog), Database(hub.dsn, size=2)
    await database.open()
    seen = dict.fromkeys(Mask, 0)
    try:
        async with database.connection() as connection:
            everything = {name: await _all(connection, catalog, tables, name) for name in FILTERS}
            for _ in range(rounds):
                policy = draw_policy(rng, catalog, tables)
                names = frozenset(rng.sample(["a", "b", "c"], rng.randint(1, 3)))
                source = rng.choice(["shop", "erp", "none"])
                principal = Principal("x", "", names, {"source": (source,)})
                dataset = catalog[rng.choice(list(FILTERS))]
                counted = await _check(
                    connection, policy, principal, dataset, everything[dataset.name], rng
                )
                for mask in counted:
                    seen[mask] += 1
    finally:
        await database.close()
    return seen


async def _all(
    connection: Connection, catalog: Catalog, tables: Tables, name: str
) -> dict[str, dict[str, Any]]:
    """Every record of a dataset with all of its values, by key."""
    clear = dict.fromkeys(FieldClass, Mask.CLEAR)
    grants = {"all": (Grant("all", name, frozenset(Action), clear, {}),)}
    policy = PolicySnapshot(1, {}, {}, grants, {}, catalog, tables, KEY)
    view = policy.view(Principal("x", "", frozenset({"all"})), name, Action.READ)
    rows = await rows_of(connection, Page(view, "", "", ""))
    paths = [f.path for f in view.fields()]
    return {key: dict(zip(paths, row, strict=True)) for key, row in rows.items()}


async def _check(
    connection: Connection,
    policy: PolicySnapshot,
    principal: Principal,
    dataset: Dataset,
    everything: dict[str, dict[str, Any]],
    rng: random.Random,
) -> list[Mask]:
    """Compare a whole explanation with reads; returns the masks that it named."""
    answer = explained(policy, principal, dataset)
    verdicts = {f.field: f.decision for f in answer.fields}
    masks = {f: v.mask for f, v in verdicts.items()}
    for action in Action:
        try:
            policy.view(principal, dataset.name, action)
        except PermissionDenied:
            assert not answer.actions[action]
        else:
            assert answer.actions[action]
    writable = {
        f
        for action in (Action.CREATE, Action.UPDATE)
        if answer.actions[action]
        for f in policy.view(principal, dataset.name, action).writable
    }
    assert {f.field for f in answer.fields if f.writable} & {*dataset.fields} == writable
    if answer.view is None:
        assert set(masks.values()) == {Mask.HIDE} and not answer.rows
        return list(masks.values())
    page = Page(answer.view, "", "", "")
    shown = await rows_of(connection, page)
    assert list(page.fields) == [f for f in dataset.fields if masks[f] is not Mask.HIDE]
    for key, row in shown.items():
        for field, value in zip(page.fields, row, strict=True):
            assert fits_mask(field, masks[field])
            whole = everything[key][field.path]
            if field.members and masks[field] is Mask.CLEAR:
                assert orjson.loads(value) == left_of(field, orjson.loads(whole), verdicts)
            else:
                assert value == masked(whole, verdicts[field]), field.path
    keys = rng.sample(sorted(everything), 20)
    for key in [*keys, "no-such-record"]:
        await _check_record(connection, answer, key, key in shown, key in everything)
    if answer.all_rows:
        assert shown.keys() == everything.keys()
    return list(masks.values())


async def _check_record(
    connection: Connection, answer: Any, key: str, shown: bool, exists: bool
) -> None:
    """Check that a record is visible by some grant if and only if a get finds it."""
    statement = answer.view.showing([r.grant for r in answer.rows])
    row = await connection.fetchrow(statement.text, *statement.arguments(key=key))
    assert (row is not None) is exists
    assert any(tuple(row or (1,))[1:]) is shown
    get = Get(answer.view, "")
    found = await connection.fetchrow(get.statement.text, *get.statement.arguments(key=key))
    assert (found is not None) is shown


@pytest.mark.parametrize("number", range(2))
def test_verdicts_are_what_rest_gives(hub: RunningHub, number: int) -> None:
    """The same through the hub: roles created, explained and used over REST."""
    print(f"seed {SEED}")
    rng = random.Random(f"{SEED}-{number}")
    dataset, name = read_catalog()["customers"], f"t-{uuid.uuid4().hex[:8]}"

    def admin(verb: str, path: str, body: Any = None) -> Any:
        reply = hub.request(verb, f"/v1/access{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    roles = [f"{name}-{i}" for i in range(2)]
    try:
        for role in roles:
            admin("POST", "/roles", {"roleId": role, "grants": [_json_grant(rng, dataset)]})
        made = admin("POST", "/consumers", {"consumerId": name, "roles": roles})
        secret = admin("POST", f"/consumers/{name}/credentials", {"kind": "API_KEY"})["secret"]
        explain = {"dataset": "customers", "consumerId": name}
        hub.settle()
        verdicts = admin("POST", ":explain", explain)
        assert int(verdicts["policyRevision"]) > int(made["policyRevision"])
        headers = {"x-api-key": secret}
        listed = hub.request("GET", "/v1/datasets", headers=headers).json()["datasets"]
        (found,) = listed
        masks = {f["path"]: f.get("mask", "CLEAR").lower() for f in found["fields"]}
        said = {f["path"]: f["mask"] for f in verdicts["fields"]}
        assert masks == {path: mask for path, mask in said.items() if mask != "hide"}
        exported = hub.request("GET", "/v1/customers:export?format=NDJSON", headers=headers).text
        keys = {
            path for line in exported.splitlines() for path in _paths(json.loads(line), dataset)
        }
        assert keys <= set(masks) and (not exported.strip() or "customer_id" in keys)
        for key in rng.sample(
            [k for (k,) in hub.sql("SELECT customer_id FROM data.customers")], 10
        ):
            record = admin("POST", ":explain", {**explain, "key": key})["record"]
            got = hub.request("GET", f"/v1/customers/{key}", headers=headers).status
            assert got == (200 if record.get("visible") else 404)
    finally:
        for path in (f"/consumers/{name}", *(f"/roles/{role}" for role in roles)):
            hub.request("DELETE", f"/v1/access{path}", consumer="admin")


def _json_grant(rng: random.Random, dataset: Dataset) -> dict[str, Any]:
    """A grant that the hub accepts, with valid masks."""
    masks = list(Mask)
    fields = rng.sample([f for f in dataset.fields if not f.key], 5)
    return {
        "dataset": dataset.name,
        "actions": ["read"],
        "classMasks": {c.name: rng.choice(masks) for c in FieldClass if rng.random() < 0.8},
        "fieldMasks": {f.path: rng.choice(_fitting(f)) for f in fields},
        "rowFilter": rng.choice(["", "status = ACTIVE", "kind = COMPANY"]),
    }


def _fitting(field: Field) -> list[Mask]:
    return [m for m in Mask if fits_mask(field, m)]


def _paths(record: dict[str, Any], dataset: Dataset) -> set[str]:
    """The paths of the fields in a record in JSON, without receipts."""
    found = set()
    for field in dataset.fields:
        value: Any = record
        for step in field.json_steps:
            value = value.get(step, ...) if isinstance(value, dict) else ...
        if value is not ...:
            found.add(field.path)
    return found
