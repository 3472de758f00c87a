"""Fields that a record must have: every way in asks for them alike, and names what is missing."""

from __future__ import annotations

import io
from typing import Any

import grpc
import pyarrow
import pyarrow.parquet
import pytest

from harness import Reply
from workshops import DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]

NOON = "2024-02-29T12:00:00Z"
GOOD = {"name": "Ada", "kind": "STAFF", "since": NOON}
#: What is said of a record that lacks everything.
MISSING = {path: "value is required" for path in ("name", "kind", "since")}


@pytest.fixture(scope="module")
def badges(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "badges")


def made(badges: DatasetDoor, key: str, **values: Any) -> str:
    """The path of a new record that has everything."""
    reply = badges.post("POST", badges.path, {"badgeId": key, **GOOD, **values})
    assert reply.status == 200, reply.text
    return f"{badges.path}/{key}"


def refused(reply: Reply, **problems: str) -> None:
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    assert reply.violations() == problems


def test_a_new_record_names_all_that_it_lacks(badges: DatasetDoor) -> None:
    refused(badges.post("POST", badges.path, {"badgeId": "new"}), **MISSING)
    nothing = {"badgeId": "new", "name": "", "kind": "KIND_UNSPECIFIED", "since": None}
    refused(badges.post("POST", badges.path, nothing), **MISSING)
    short = {"badgeId": "new", **GOOD, "name": "A", "note": "ab"}
    said = {"name": "must be at least 2 characters", "note": "must be at least 3 characters"}
    refused(badges.post("POST", badges.path, short), **said)
    assert badges.hub.get(f"{badges.path}/new", "admin").status == 404


def test_members_are_required_where_their_message_is_present(badges: DatasetDoor) -> None:
    record = {"badgeId": "home", **GOOD, "home": {"floor": 3}, "doors": [{"floor": 1}]}
    said = {"home.label": "value is required", "doors[0].label": "value is required"}
    refused(badges.post("POST", badges.path, record), **said)
    path = made(badges, "home", home={"label": "A"}, doors=[{"label": "B"}])
    reply = badges.post("PATCH", path, {"home": {"label": None}})
    refused(reply, **{"home.label": "value is required"})
    assert badges.post("PATCH", path, {"home": {"floor": 3}}).status == 200
    assert badges.post("PATCH", path, {"home": None}).status == 200


def test_a_patch_keeps_what_is_required(badges: DatasetDoor) -> None:
    path = made(badges, "patched")
    assert badges.post("PATCH", path, {"note": "other"}).status == 200
    refused(badges.post("PATCH", path, dict.fromkeys(GOOD)), **MISSING)
    refused(badges.post("PATCH", path, {"name": "", "note": "new"}), name="value is required")
    refused(badges.post("PATCH", f"{path}?update_mask=kind", {}), kind="value is required")
    assert badges.hub.get(path, "admin").json()["note"] == "other"


def test_a_replacement_must_have_what_is_required(badges: DatasetDoor) -> None:
    path = made(badges, "replaced")
    refused(badges.post("PATCH", f"{path}?update_mask=*", {"note": "only"}), **MISSING)
    reply = badges.post("PATCH", f"{path}?update_mask=*", {**GOOD, "name": "Bob"})
    assert (reply.status, reply.json()["name"]) == (200, "Bob")


def test_an_update_that_may_create_must_have_what_is_required(badges: DatasetDoor) -> None:
    path = f"{badges.path}/upserted?allow_missing=true"
    said = {k: v for k, v in MISSING.items() if k != "name"}
    refused(badges.post("PATCH", path, {"name": "Ada"}), **said)
    assert badges.post("PATCH", path, GOOD).status == 200
    assert badges.post("PATCH", path, {"note": "more"}).status == 200


def test_a_record_that_breaks_the_rules_may_change_elsewhere(badges: DatasetDoor) -> None:
    """As records do that are older than a rule."""
    path = made(badges, "older")
    badges.hub.sql("UPDATE data.badges SET name = '', kind = 'KIND_UNSPECIFIED' "
                   "WHERE badge_id = 'older'")  # fmt: skip
    assert badges.post("PATCH", path, {"note": "still"}).status == 200
    reply = badges.send("CSV", b"badge_id,note\nolder,moved\n")
    assert reply.status == 200, reply.text
    got = badges.hub.get(path, "admin").json()
    assert (got["name"], got["note"]) == ("", "moved")
    refused(badges.post("PATCH", path, {"name": "", "note": "new"}), name="value is required")


@pytest.mark.parametrize("more", [1, 150], ids=["few", "many"])
def test_batches(badges: DatasetDoor, more: int) -> None:
    good = [{"badgeId": f"b{more}-{i}", **GOOD} for i in range(more)]
    records = [*good, {"badgeId": f"b{more}-bad"}]
    path = f"{badges.path}:batchUpsert"
    said = {f"badges[{more}].{field}": text for field, text in MISSING.items()}
    refused(badges.post("POST", path, {"badges": records}), **said)
    reply = badges.post("POST", path, {"badges": records, "partial": True})
    assert reply.status == 200, reply.text
    errors = {e["field"]: e["description"] for e in reply.json()["rowErrors"]}
    assert (errors, int(reply.json()["createdCount"])) == (MISSING, more)


def test_grpc(badges: DatasetDoor) -> None:
    for verb in ("Create", "Update"):
        request = badges.message(f"{verb}BadgeRequest")
        request.badge.badge_id = "grpc"
        if verb == "Update":
            made(badges, "grpc")
            request.update_mask.paths.append("*")
        with pytest.raises(grpc.RpcError, match="name: value is required"):
            badges.call(f"{verb}Badge", request, "Badge")


def parquet(**values: list[Any]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(values), out)
    return out.getvalue()


FILES = {
    "JSON": b'[{"badgeId": "file"}]',
    "NDJSON": b'{"badgeId": "file", "name": "", "kind": 0}',
    "XML": b"<badges><badge><badge_id>file</badge_id><name></name></badge></badges>",
    "CSV": b"badge_id,name,kind,since\nfile,,,\n",
    "PARQUET": parquet(
        badge_id=["file"], name=[""], kind=[None], since=pyarrow.array([None], pyarrow.string())
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files(badges: DatasetDoor, name: str) -> None:
    reply = badges.send(name, FILES[name])
    assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID"), reply.text
    assert reply.violations() == {f"rows[1].{field}": text for field, text in MISSING.items()}
    reply = badges.send(name, FILES[name], partial="true")
    found = {e["field"]: e["description"] for e in reply.json()["rowErrors"]}
    assert found == MISSING


@pytest.mark.parametrize("name", ["CSV", "PARQUET"])
def test_columns_that_are_absent_are_asked_for_new_records_alone(
    badges: DatasetDoor, name: str
) -> None:
    key = f"known-{name}"
    made(badges, key)
    keys = [key, f"other-{name}"]
    rows = "".join(f"{key},noted\n" for key in keys)
    file = f"badge_id,note\n{rows}".encode()
    if name == "PARQUET":
        file = parquet(badge_id=keys, note=["noted"] * 2)
    reply = badges.send(name, file, partial="true")
    assert reply.status == 200, reply.text
    report = reply.json()
    assert (int(report["updatedCount"]), int(report["refusedCount"])) == (1, 1)
    assert {e["field"]: e["description"] for e in report["rowErrors"]} == MISSING


def test_many_good_rows_are_loaded(badges: DatasetDoor) -> None:
    """By the kernel, which reads what is required too."""
    rows = "".join(f"k{i},Ada,GUEST,{NOON}\n" for i in range(500))
    file = f"badge_id,name,kind,since\n{rows}".encode()
    reply = badges.send("CSV", file + b"bad,A,KIND_UNSPECIFIED,\n", partial="true")
    assert reply.status == 200, reply.text
    said = MISSING | {"name": "must be at least 2 characters"}
    assert {e["field"]: e["description"] for e in reply.json()["rowErrors"]} == said
    assert int(reply.json()["createdCount"]) == 500


def test_datasets_and_the_schema_say_what_is_required(badges: DatasetDoor) -> None:
    listed = badges.hub.get("/v1/datasets", "admin").json()["datasets"]
    (found,) = [d for d in listed if d["name"] == "badges"]
    fields = {f["path"]: f for f in found["fields"]}
    required = {path for path, field in fields.items() if field.get("required")}
    assert required == {"name", "kind", "since", "home.label"}
    assert {p: f["minLength"] for p, f in fields.items() if f.get("minLength")} == {
        "name": 2, "note": 3,
    }  # fmt: skip
    (label, floor) = fields["doors"]["members"]
    assert (label.get("required", False), floor.get("required", False)) == (True, False)
    schema = badges.hub.get("/v1/datasets/badges/schema.xsd", "admin").text
    assert "Who wears it. Required. At least 2 character(s)." in schema
    assert "What it says. At least 3 character(s)." in schema
