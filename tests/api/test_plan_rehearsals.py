"""Rehearsals of plans over REST and on the command line: what they say is what limits then do."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeds import Made, consumer_with, grant
from harness import Reply, RunningHub, eventually

LIST = "/v1/customers?page_size=2"
QUOTA = {"what": "calls", "per": "month", "limit": "6"}
PLAN = {
    "planId": "rehearsed",
    "timeZone": "Europe/Berlin",
    "rates": [{"perSecond": 1000, "burst": 10_000}],
    "concurrent": {"streams": 3},
    "quotas": [QUOTA, {"what": "records", "per": "month", "limit": "1000000"}],
}


@pytest.fixture
def made(hub: RunningHub) -> Iterator[Made]:
    """A consumer that has listed ten pages, which usage counts."""
    with consumer_with(hub, grant("customers")) as found:
        assert {call(found).status for _ in range(10)} == {200}
        eventually(lambda: count_calls(found) == 10)
        yield found


def call(made: Made) -> Reply:
    return made.hub.request("GET", LIST, headers={"x-api-key": made.key.removeprefix("key:")})


def count_calls(made: Made) -> int:
    reply = made.hub.request("GET", f"/v1/usage:report?consumer={made.name}", consumer="admin")
    return sum(int(row["calls"]) for row in reply.json().get("rows", []))


def rehearse(hub: RunningHub, consumer: str = "admin", **body: Any) -> Reply:
    return hub.request(
        "POST", "/v1/plans:rehearse", consumer=consumer, json_body={"plan": PLAN, **body}
    )


def find(reply: Reply, consumer: str) -> dict[str, dict[str, Any]]:
    assert reply.status == 200, reply.text
    return {row["limit"]: row for row in reply.json()["limits"] if row["consumer"] == consumer}


def test_a_rehearsal_says_what_the_plan_then_does(hub: RunningHub, made: Made) -> None:
    found = find(rehearse(hub, consumers=[made.name], days=1), made.name)
    calls = found["calls-per-month"]
    assert (calls["verdict"], calls["refused"], calls["refusedAtMost"]) == ("REFUSES", "4", "4")
    assert (calls["peak"], calls["allowed"], calls["resolution"]) == ("10", "6", "minute")
    assert calls["stretches"][0]["startTime"] == calls["firstTime"]
    assert calls["stretches"][0]["refused"] == "4"
    assert found["records-per-month"]["verdict"] == "FITS"
    assert found["records-per-month"]["peak"] == "20"
    assert found["rate"]["verdict"] == "FITS"
    streams = found["concurrent-streams"]
    assert streams["verdict"] == "NOT_JUDGED" and "streams were under way" in streams["reason"]
    # The limit itself, on the same ten calls: four are refused.
    made.administer("PATCH", f"/consumers/{made.name}", {"limits": {"quotas": [QUOTA]}})
    hub.settle()
    assert [call(made).status for _ in range(10)].count(429) == 4
    # Calls that the limit refused count as calls that were tried.
    eventually(lambda: count_calls(made) == 20)
    again = find(rehearse(hub, consumers=[made.name], days=1), made.name)
    assert again["calls-per-month"]["refused"] == "14"


def test_whom_a_rehearsal_judges(hub: RunningHub, made: Made) -> None:
    assert "limits" not in rehearse(hub).json()
    everybody = rehearse(hub, allConsumers=True).json()["limits"]
    assert {made.name, "crm", "bi"} <= {row["consumer"] for row in everybody}
    # The plan of this name, with other limits, and those of the consumer over them.
    named = {**PLAN, "planId": "internal"}
    holders = {row["consumer"] for row in rehearse(hub, plan=named).json()["limits"]}
    assert "crm" in holders and made.name not in holders
    lifted = {"rates": [{"unlimited": True}], "quotas": [{**QUOTA, "limit": "20"}]}
    made.administer("PATCH", f"/consumers/{made.name}", {"limits": lifted})
    hub.settle()
    own = find(rehearse(hub, consumers=[made.name]), made.name)
    assert own["calls-per-month"]["verdict"] == "FITS" and "rate" not in own


def test_what_a_rehearsal_refuses(hub: RunningHub, made: Made) -> None:
    key = {"x-api-key": made.key.removeprefix("key:")}

    def status() -> int:
        return hub.request(
            "POST", "/v1/plans:rehearse", headers=key, json_body={"plan": PLAN}
        ).status

    # Neither permission is enough by itself.
    for permissions, right in (
        (["plans.read"], 403),
        (["usage.read"], 403),
        (["plans.read", "usage.read"], 200),
    ):
        made.administer("PATCH", f"/roles/{made.name}", {"permissions": permissions})
        hub.settle()
        assert status() == right, permissions
    assert rehearse(hub, consumers=["nobody"]).reason == "RECORD_NOT_FOUND"
    assert rehearse(hub, days=367).violations() == {"days": "must be between 1 and 366"}
    both = rehearse(hub, consumers=["crm"], allConsumers=True)
    assert set(both.violations()) == {"consumers"}
    wrong = rehearse(hub, plan={"planId": "x", "rates": [{"perSecond": 0}]})
    assert set(wrong.violations()) == {"plan.rates[0].perSecond", "plan.rates[0].burst"}


def test_the_command_prints_a_rehearsal(hub: RunningHub, made: Made, tmp_path: Path) -> None:
    file = tmp_path / "gold.toml"
    file.write_text(
        'plan_id = "rehearsed"\n[concurrent]\ncalls = 1\n'
        '[[quotas]]\nwhat = "calls"\nper = "month"\nlimit = 11\n'
    )
    arguments = ("plans", "rehearse", str(file), "--days", "30", "--consumer", made.name)
    table = hub.command(*arguments)
    assert b"each limit by itself" in table.stderr and b"NEAR" in table.stdout
    rows = list(
        csv.DictReader(io.StringIO(hub.command(*arguments, "--format", "csv").stdout.decode()))
    )
    assert [(r["limit"], r["verdict"], r["near_hours"]) for r in rows] == [
        ("calls-per-month", "NEAR", "1"),
        ("concurrent-calls", "NOT_JUDGED", "0"),
    ]
    (quota, _) = json.loads(hub.command(*arguments, "--format", "json").stdout)
    assert quota["peak"] == "10" and quota["resolution"] == "minute"
    nobody = hub.command("plans", "rehearse", str(file))
    assert b"no consumer has this plan" in nobody.stderr
    both = hub.command(*arguments, "--all", check=False)
    assert both.returncode and b"give either --consumer or --all" in both.stderr
