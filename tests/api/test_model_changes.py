"""The catalogue of model changes, through a hub: every way out shows values that were stored before
a migration correctly after it, or gives an error that names the record."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from changing import NEVER, Change
from feeds import CLEAR, consumer_with, grant
from harness import Reply, RunningHub, folder
from model_changes import CHANGES, dataset_of, model_of
from penstock.hub.v1 import changes_pb2
from workshops import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane(priority=8)]

#: Changes that a migration can apply. The others are refused whatever the tables hold.
APPLIED = {name: change for name, change in CHANGES.items() if change.empty is not NEVER}
#: Those of APPLIED after which the log can still be read.
KEPT = {n: c for n, c in APPLIED.items() if not c.closes and c.before and c.after}
#: The other changes that the test tries with a hub; unit tests try changes of single values.
NESTED = re.compile("repeated|map<|message|Struct|reference|dataset|fixed|sint")
TRIED = {
    n: c for n, c in APPLIED.items() if n in KEPT or NESTED.search(f"{n} {c.before} {c.after}")
}
FORMATS = ("CSV", "JSON", "XML", "PARQUET", "ARROW", "XLSX")
LABELS = {"PG-13": "A", "PG 13": "A", "NONE": "", "UNKNOWN": ""}


class Migrated:
    """A hub whose model has changed, and a cursor from before the values were written."""

    def __init__(self, made: Workshop) -> None:
        self.made, self.hub, self.place = made, made.hub, ""
        self.webhooks: dict[str, str] = {}
        self.key = ""

    def load(self, change: str) -> None:
        """Write the values of a change, with the keys k0, k1, …, and delete those that the change
        would refuse, so that only the log has them."""
        told = CHANGES[change]
        rows = [row_of(told, f"k{i}", value) for i, (value, _) in enumerate(told.values)]
        bad = [row_of(told, f"bad{i}", value) for i, value in enumerate(told.refused)]
        if told.refused and told.refused[0] in told.refused[1:]:
            bad = bad[:1]  # unique values
        path = f"/v1/{dataset_of(change)}"
        for row in [*rows, *bad]:
            reply = self.send("POST", f"{path}:import?format=NDJSON", json.dumps(row).encode())
            assert reply.json().get("createdCount") == "1", (change, reply.text)
        for row in bad:
            assert self.send("DELETE", f"{path}/{row['keyId']}").status == 200, change

    def send(self, verb: str, path: str, body: bytes | None = None) -> Reply:
        return self.hub.request(verb, path, consumer="admin", body=body)


def row_of(change: Change, key: str, value: Any) -> dict[str, Any]:
    """A record in JSON with a value of the field that a change writes."""
    *steps, last = change.write.split(".")
    row: dict[str, Any] = {last: value}
    for step in reversed(steps):
        row = {step: row}
    parts = {"part": 0} if "part" in change.keys[0] else {}
    return {"keyId": key, **parts, **row}


def value_in(change: Change, record: dict[str, Any] | None) -> Any:
    """The value of the field that a change reads; None if it is unset or empty."""
    found: Any = record
    for step in change.read.split("."):
        found = (found or {}).get(step)
    return found or None


@pytest.fixture(scope="module")
def migrated() -> Iterator[Migrated]:
    with folder() as tree, folder() as data, contextlib.ExitStack() as stack:
        made = Workshop(tree / "model", data / "hub")
        subject = Migrated(made)
        try:
            change_model(made, later=False)
            made.hub.start()
            for name, change in TRIED.items():
                if name not in KEPT and change.before is not None:
                    subject.load(name)
            made.hub.head()
            # The checks below must not depend on whether the log is closed.
            made.hub.sql("SELECT hub.prune_log(last_number) FROM hub.log_head")
            subject.webhooks = make_users(made.hub)
            subject.key = stack.enter_context(consumer_with(made.hub, *GRANTS)).key
            subject.place = made.hub.get("/v1/customers:changes").json()["nextCursor"]
            for name in KEPT:
                subject.load(name)
            made.hub.head()
            made.hub.stop()
            change_model(made, later=True)
            said = made.refused()
            assert "penstock migrate --apply" in said and "Traceback" not in said
            applied = made.hub.command("migrate", "--apply").stdout.decode()
            assert "the change log up to now is closed" not in applied
            made.hub.start()
            yield subject
            stack.close()
        finally:
            made.hub.stop()


def change_model(made: Workshop, *, later: bool) -> None:
    """Give the workshop the model from before or after all changes that can be applied."""
    models = {}
    for change in TRIED:
        text = model_of(change, later)
        if text is None:
            (made.models / f"{dataset_of(change)}.proto").unlink(missing_ok=True)
        else:
            models[dataset_of(change)] = text
    made.generate(models)


#: Datasets that are renamed or removed, or have a field that is.
TOUCHED = tuple(map(dataset_of, ("field renamed", "field removed", "dataset removed")))


GRANTS = [grant(name, 'v = "a"', CLEAR, v="clear") for name in TOUCHED]


def make_users(hub: RunningHub) -> dict[str, str]:
    """For each dataset of TOUCHED a subscription, a shape and a webhook that name its field ``v``.
    Returns the webhooks."""
    webhooks = {}
    for name in TOUCHED:
        short, picked = name.replace("_", "-"), {"dataset": name, "filter": 'v = "a"'}
        subscription = {"subscriptionId": short, "datasets": [name], "filter": 'v = "a"'}
        columns = [{"name": "V", "field": "v"}]
        for path, document in {
            "/v1/subscriptions": {"subscription": subscription, "start": "now"},
            "/v1/shapes": {"shapeId": short, "dataset": name, "columns": columns},
            "/v1/webhooks": {"url": "", "kind": "LISTEN", "selections": [picked]},
        }.items():
            reply = hub.request("POST", path, consumer="admin", json_body=document)
            assert reply.status == 200, (path, reply.text)
        webhooks[name] = reply.json()["webhook"]["webhookId"]
    return webhooks


def test_every_value_is_read_on_every_way_out(migrated: Migrated) -> None:
    faults: list[tuple[Any, ...]] = []
    for index, (name, change) in enumerate(TRIED.items()):
        path, wanted = f"/v1/{dataset_of(name)}", [v or None for _, v in change.values]
        if change.after is None:
            assert migrated.send("GET", path).status == 404
            continue
        listed = migrated.send("GET", path)
        assert listed.status == 200, (name, listed.text)
        [records] = [v for k, v in listed.json().items() if k != "nextPageToken"] or [[]]
        if [value_in(change, r) for r in records] != wanted:
            faults.append(("list", name, wanted, records))
        for format in ("NDJSON", FORMATS[index % len(FORMATS)]):
            file = migrated.send("GET", f"{path}:export?format={format}&omit_receipt=true")
            assert file.status == 200, (name, format, file.text)
            if format == "NDJSON":
                rows = [json.loads(line) for line in file.text.splitlines()]
                if [value_in(change, r) for r in rows] != [v or None for _, v in change.values]:
                    faults.append(("export", name, change.values, rows))
        for record in records:
            key = record.get("keyId", record.get("code"))
            if "part" not in change.keys[1]:
                got = migrated.send("GET", f"{path}/{key}")
                if (got.status, got.json()) != (200, record):
                    faults.append(("get", name, record, got.text))
    assert not faults, faults


def test_feeds_show_what_was_written_before(migrated: Migrated) -> None:
    faults: list[tuple[Any, ...]] = []
    for name, change in TRIED.items():
        if change.after is None:
            continue
        place = f"/v1/{dataset_of(name)}:changes?cursor={migrated.place}&include_before=true"
        reply = migrated.send("GET", place)
        if reply.status != 200:
            faults.append((name, reply.text))
            continue
        changes = reply.json().get("changes", [])
        after = [value_in(change, c.get("after")) for c in changes if c["key"].startswith("k")]
        if name in KEPT and after != [v or None for _, v in change.values]:
            faults.append((name, change.values, changes))
    assert not faults, faults


def test_what_names_a_former_field_or_dataset_says_so(migrated: Migrated) -> None:
    """Roles, subscriptions, shapes and webhooks stay when what they name is gone: they show
    nothing, or say what they lack, and callers can read and delete them."""
    headers = {"x-api-key": migrated.key.removeprefix("key:")}
    for name in TOUCHED:
        short, webhook = name.replace("_", "-"), f"/v1/webhooks/{migrated.webhooks[name]}"
        gone = name == dataset_of("dataset removed")
        pulled = migrated.send("POST", f"/v1/subscriptions/{short}:pull", b"{}")
        assert pulled.reason == ("PERMISSION_DENIED" if gone else "FIELD_UNKNOWN"), pulled.text
        shaped = migrated.send("GET", f"/v1/{name}:export?format=CSV&shape={short}")
        assert shaped.reason == ("METHOD_UNKNOWN" if gone else "VALUE_INVALID"), shaped.text
        assert gone or "unknown field 'v'" in shaped.text
        assert migrated.send("POST", f"{webhook}:pull", b"{}").json() == {}
        if not gone:  # a rule that names an unknown field lets no row through
            (records,) = migrated.send("GET", f"/v1/{name}").json().values()
            none = migrated.hub.request("GET", f"/v1/{name}", headers=headers).json()
            assert records and list(none.values()) == [[]]
        for path in (f"/v1/subscriptions/{short}", f"/v1/shapes/{short}", webhook):
            for verb in ("GET", "DELETE"):
                reply = migrated.send(verb, path)
                assert reply.status == 200, (verb, path, reply.text)


def test_values_of_a_removed_field_are_in_no_feed(migrated: Migrated) -> None:
    """Feeds do not show removed values, not even among the unknown fields of a message."""
    name = dataset_of("field removed")
    kept = migrated.hub.sql("SELECT after FROM hub.change WHERE dataset = $1", name)
    assert any(b"a value that is gone" in row[0] for row in kept), "the control"
    with grpc.insecure_channel(f"127.0.0.1:{migrated.hub.port}") as channel:
        request = changes_pb2.ListChangesRequest(
            datasets=[name], cursor=migrated.place, include_before=True
        )
        call: Any = channel.unary_unary("/penstock.hub.v1.Changes/ListChanges")
        metadata = migrated.hub.metadata("admin")
        answer: bytes = call(request.SerializeToString(), metadata=metadata)
    assert b"k0" in answer and b"a value that is gone" not in answer
