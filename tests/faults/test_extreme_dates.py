"""The first and the last supported day: every write, read and export keeps them."""

from __future__ import annotations

import pytest

from harness import RunningHub

pytestmark = pytest.mark.lane("faults/own_hub")

FIRST, LAST = "0001-01-01", "9999-12-31"
#: More rows than are sent as arrays.
MANY = 600


def days(hub: RunningHub, tag: str) -> dict[str, str]:
    reply = hub.get(
        "/v1/customers", filter=f'source_id = "{tag}"', order_by="birth_date", page_size=1000
    )
    assert reply.status == 200, reply.text
    return {c["customerId"]: c["birthDate"] for c in reply.json()["customers"]}


@pytest.mark.parametrize("count", [2, MANY], ids=["few", "many"])
def test_an_import_keeps_them(own_hub: RunningHub, count: int) -> None:
    tag = f"import-{count}"
    wanted = {f"{tag}-{i}": (FIRST, LAST)[i % 2] for i in range(count)}
    rows = "".join(f"{key},x,{day},{tag}\n" for key, day in wanted.items())
    body = ("customer_id,name,birth_date,source_id\n" + rows).encode()
    for created in (count, 0):  # the second time, no row differs
        reply = own_hub.request(
            "POST",
            "/v1/customers:import?format=CSV",
            consumer="admin",
            body=body,
            headers={"content-type": "text/csv"},
        )
        assert reply.status == 200, reply.text
        assert int(reply.json().get("createdCount", 0)) == created
        assert int(reply.json().get("unchangedCount", 0)) == count - created
    assert days(own_hub, tag) == wanted


def test_records_keep_them_and_filters_and_sorts_know_them(own_hub: RunningHub) -> None:
    tag = "record"
    for key, day in (("last", LAST), ("first", FIRST), ("some", "2024-02-29")):
        record = {"customerId": f"{tag}-{key}", "name": "x", "sourceId": tag, "birthDate": day}
        reply = own_hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert (reply.status, reply.json()["birthDate"]) == (200, day)
        path = f"/v1/customers/{tag}-{key}"
        assert own_hub.get(path).json()["birthDate"] == day
        again = own_hub.request("PATCH", path, consumer="admin", json_body={"birthDate": day})
        assert again.json()["etag"] == reply.json()["etag"]
    assert list(days(own_hub, tag)) == [f"{tag}-first", f"{tag}-some", f"{tag}-last"]
    for day, key in ((LAST, "last"), (FIRST, "first")):
        found = own_hub.get(
            "/v1/customers", filter=f'source_id = "{tag}" AND birth_date = "{day}"'
        ).json()["customers"]
        assert [c["customerId"] for c in found] == [f"{tag}-{key}"]
    # Pages continue behind the extremes too.
    one = {"filter": f'source_id = "{tag}"', "order_by": "birth_date", "page_size": "1"}
    seen, token = [], ""
    while True:
        page = own_hub.get("/v1/customers", consumer="admin", **one, page_token=token).json()
        seen += [c["birthDate"] for c in page["customers"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert seen == [FIRST, "2024-02-29", LAST]


@pytest.mark.parametrize("format", ["CSV", "JSON", "NDJSON", "XML"])
def test_exports_show_them(own_hub: RunningHub, format: str) -> None:
    tag = f"export-{format}"
    batch = [
        {"customerId": f"{tag}-{day}", "name": "x", "sourceId": tag, "birthDate": day}
        for day in (FIRST, LAST)
    ]
    reply = own_hub.request(
        "POST", "/v1/customers:batchUpsert", consumer="admin", json_body={"customers": batch}
    )
    assert reply.status == 200, reply.text
    exported = own_hub.get(
        "/v1/customers:export",
        format=format,
        filter=f'source_id = "{tag}"',
        fields="birth_date",
    ).text
    assert FIRST in exported
    assert LAST in exported
    assert "infinity" not in exported.lower()


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_two_times_that_stand_for_infinity_are_refused(own_hub: RunningHub, time: str) -> None:
    record = {"interactionId": f"i-{time[:4]}", "customerId": "c", "occurTime": time}
    reply = own_hub.request("POST", "/v1/interactions", consumer="admin", json_body=record)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert "occurTime" in reply.violations()
