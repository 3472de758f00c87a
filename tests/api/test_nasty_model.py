"""Models that other people's tables force: odd names, odd types, odd keys, on every surface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from harness import ROOT, RunningHub, folder

from .test_new_dataset import OUTPUT, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane(priority=8)]

MODELS = ROOT / "tests/models"
FORMATS = ("CSV", "NDJSON", "JSON", "XML", "PARQUET", "ARROW")


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A hub with the demo's datasets and those of tests/models."""
    with folder() as tree, folder() as data:
        made = Workshop(tree / "model", data / "hub")
        try:
            made.generate({path.stem: path.read_text() for path in MODELS.iterdir()})
            made.hub.start()
            yield made.hub
        finally:
            made.hub.stop()


def record_of(reply: dict[str, Any]) -> dict[str, Any]:
    """A record without what the hub writes."""
    return {name: value for name, value in reply.items() if name not in OUTPUT}


def check_everywhere(hub: RunningHub, path: str, key: str, records: list[dict[str, Any]]) -> None:
    """Whether records pass unchanged through every way in and out of the dataset at ``path``."""
    place = hub.get(f"{path}:changes", "admin").json()["nextCursor"]
    by_key = {r[key]: r for r in records}
    for record in records:
        reply = hub.request("POST", path, consumer="admin", json_body=record)
        assert reply.status == 200, reply.text
        assert record_of(reply.json()) == record
        got = hub.get(f"{path}/{quote(record[key], safe='')}", "admin")
        assert (got.status, record_of(got.json())) == (200, record), got.text
    told = hub.get(f"{path}:changes", "admin", cursor=place, wait="30s").json()["changes"]
    assert {c["key"]: record_of(c["after"]) for c in told}.items() <= by_key.items()
    listed = hub.get(path, "admin").json()[path.rpartition("/")[2]]
    assert {r[key]: record_of(r) for r in listed} == by_key
    files = {}
    for name in FORMATS:
        file = hub.get(f"{path}:export", "admin", format=name, omit_receipt="true")
        assert file.status == 200, f"{name}: {file.text}"
        files[name] = file.body
        again = hub.request(
            "POST", f"{path}:import?format={name}", consumer="admin", body=file.body
        )
        count = str(len(records))
        assert again.json() == {"rowCount": count, "unchangedCount": count}, (name, again.text)
    for name, data in files.items():
        for record in records:
            gone = hub.request("DELETE", f"{path}/{quote(record[key], safe='')}", consumer="admin")
            assert gone.status == 200, gone.text
        again = hub.request("POST", f"{path}:import?format={name}", consumer="admin", body=data)
        assert again.json().get("createdCount") == str(len(records)), (name, again.text)
        listed = hub.get(path, "admin").json()[path.rpartition("/")[2]]
        assert {r[key]: record_of(r) for r in listed} == by_key, name


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
