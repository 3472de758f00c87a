"""Plans over REST and on the command line: made, given, changed, gone back to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeds import consumer_with
from harness import Reply, RunningHub

GOLD = """
plan_id = "{name}"
description = "For partners"
time_zone = "Europe/Berlin"

[[rates]]
per_second = 50
burst = 100

[concurrent]
calls = 20
exports = 2

[[quotas]]
what = "calls"
per = "month"
limit = 1_000_000

[[quotas]]
what = "records"
per = "day"
limit = 5_000
soft = true
dataset = "customers"
"""


@pytest.fixture
def name(hub: RunningHub) -> Iterator[str]:
    """The id of a plan, which is deleted at the end."""
    made = f"t-{uuid.uuid4().hex[:8]}"
    yield made
    assert hub.request("DELETE", f"/v1/plans/{made}", consumer="admin").status in (200, 404)


def call(hub: RunningHub, method: str, path: str, body: Any = None, **query: Any) -> Reply:
    return hub.request(method, path, consumer="admin", json_body=body, query=query)


def done(reply: Reply) -> Any:
    assert reply.status == 200, reply.text
    return reply.json()


def revision(hub: RunningHub) -> int:
    return int(hub.sql("SELECT revision FROM hub.policy")[0][0])


def test_a_plan_from_a_file(hub: RunningHub, name: str, tmp_path: Path) -> None:
    """What an operator does on the command line."""
    file = tmp_path / "gold.toml"
    file.write_text(GOLD.format(name=name))
    dry = json.loads(hub.command("plans", "create", str(file), "--dry-run").stdout)
    assert dry["quotas"][0]["what"] == "calls"
    assert call(hub, "GET", f"/v1/plans/{name}").reason == "RECORD_NOT_FOUND"
    hub.command("plans", "create", str(file), "--comment", "for the partners")
    first = revision(hub)
    shown = json.loads(hub.command("plans", "show", name, "--format", "json").stdout)
    assert shown["time_zone"] == "Europe/Berlin" and "policy_revision" not in shown
    assert shown["rates"] == [{"per_second": 50.0, "burst": 100}]
    assert {(q["what"], q["per"], q["limit"]) for q in shown["quotas"]} == {
        ("calls", "month", "1000000"), ("records", "day", "5000"),
    }  # fmt: skip
    # What show prints, update reads.
    again = tmp_path / "gold.json"
    again.write_text(json.dumps(shown | {"description": "Better", "concurrent": {"calls": 30}}))
    hub.command("plans", "update", str(again), "--comment", "more at a time")
    told = hub.command("plans", "diff", str(first)).stdout.decode().splitlines()
    assert told == [
        f"plan {name}: description For partners -> Better",
        f"plan {name}: concurrent-calls 20 -> 30",
        f"plan {name}: concurrent-exports removed (2)",
    ]
    text = hub.command("plans", "list").stdout.decode()
    assert name in text and "50/s" in text and "records/day:customers=5000(soft)" in text
    history = json.loads(hub.command("plans", "history", "--format", "json").stdout)
    assert [r["comment"] for r in history[:2]] == ["more at a time", "for the partners"]
    done_back = hub.command("plans", "rollback", str(first), "--comment", "not yet")
    assert f"plan {name}: concurrent-calls 30 -> 20" in done_back.stdout.decode()
    assert done(call(hub, "GET", f"/v1/plans/{name}"))["description"] == "For partners"
    hub.command("plans", "delete", name)
    assert call(hub, "GET", f"/v1/plans/{name}").status == 404


def test_a_consumer_has_a_plan_and_limits_of_its_own(
    hub: RunningHub, name: str, tmp_path: Path
) -> None:
    done(call(hub, "POST", "/v1/plans", {"planId": name, "concurrent": {"calls": 3}}))
    with consumer_with(hub) as made:
        file = tmp_path / "limits.toml"
        file.write_text('[[quotas]]\nwhat = "calls"\nper = "hour"\nlimit = 5000\n')
        hub.command("consumers", "update", made.name, "--plan", name, "--limits", str(file))
        given = done(call(hub, "GET", f"/v1/access/consumers/{made.name}"))
        assert given["plan"] == name
        assert given["limits"] == {"quotas": [{"what": "calls", "per": "hour", "limit": "5000"}]}
        refused = call(hub, "DELETE", f"/v1/plans/{name}")
        assert refused.reason == "PLAN_IN_USE" and made.name in refused.text
        # Going back in access does not touch plans, and going back in plans does not touch roles.
        before = revision(hub)
        hub.command("consumers", "update", made.name, "--no-plan", "--no-limits")
        hub.command("consumers", "update", made.name, "--no-roles")
        (latest, *_) = done(call(hub, "GET", "/v1/plans:history"))["revisions"]
        assert int(latest["revision"]) == before + 1, "the change of roles is none of plans"
        reply = done(call(hub, "POST", "/v1/plans:rollback", {"revision": str(before)}))
        assert {d["part"] for d in reply["differences"]} == {"plan", "limit calls-per-hour"}
        assert int(reply["revision"]) == revision(hub)
        given = done(call(hub, "GET", f"/v1/access/consumers/{made.name}"))
        assert given["plan"] == name and "roles" not in given
        done(call(hub, "POST", f"/v1/access/revisions/{before}:rollback", {}))
        given = done(call(hub, "GET", f"/v1/access/consumers/{made.name}"))
        assert given["plan"] == name and given["roles"] == [made.name]
        wrong = call(hub, "PATCH", f"/v1/access/consumers/{made.name}", {"plan": "none-such"})
        assert wrong.violations() == {"plan": "there is no plan 'none-such'"}
        wrong = call(
            hub, "PATCH", f"/v1/access/consumers/{made.name}",
            {"limits": {"quotas": [{"what": "calls", "per": "week"}]}},
        )  # fmt: skip
        assert set(wrong.violations()) == {"limits.quotas[0].per"}


def test_a_patch_merges(hub: RunningHub, name: str) -> None:
    """RFC 7396: members that are present change, objects merge, lists replace, null clears."""
    rate = {"perSecond": 5, "burst": 10}
    plan = {"planId": name, "concurrent": {"calls": 3, "streams": 2}, "rates": [rate]}
    done(call(hub, "POST", "/v1/plans", plan))
    path = f"/v1/plans/{name}"

    def changed(body: Any, path: str = path, **query: Any) -> Any:
        return done(call(hub, "PATCH", path, body, **query))

    assert changed({"concurrent": {"calls": 4}})["concurrent"] == {"calls": 4, "streams": 2}
    assert changed({"concurrent": {}})["concurrent"] == {"calls": 4, "streams": 2}
    assert changed({})["concurrent"] == {"calls": 4, "streams": 2}
    assert changed({"concurrent": {"calls": None}})["concurrent"] == {"streams": 2}
    assert changed({"rates": [{**rate, "burst": 20}]})["rates"] == [{**rate, "burst": 20}]
    masked = changed({"concurrent": {"calls": 1}}, update_mask="concurrent")
    assert masked["concurrent"] == {"calls": 1}, "a mask replaces what it names"
    assert "concurrent" not in changed({"concurrent": None})
    unknown = call(hub, "PATCH", path, {"concurrent": {}}, update_mask="concurrent.pace")
    assert unknown.reason == "FIELD_UNKNOWN"
    with consumer_with(hub) as made:
        path = f"/v1/access/consumers/{made.name}"
        first = {"claims": {"region": {"values": ["EU"]}, "team": {"values": ["x"]}}}
        quota = {"what": "calls", "per": "hour", "limit": "5000"}
        limits = {"concurrent": {"calls": 3, "exports": 1}, "quotas": [quota]}
        assert changed({**first, "limits": limits}, path)["limits"] == limits
        more = {"limits": {"concurrent": {"calls": 5}}, "claims": {"unit": {"values": ["1"]}}}
        found = changed(more, path)
        assert found["limits"] == {**limits, "concurrent": {"calls": 5, "exports": 1}}
        assert set(found["claims"]) == {"region", "team", "unit"}
        found = changed({"claims": {"team": None, "none": None}, "limits": {}}, path)
        assert set(found["claims"]) == {"region", "unit"} and "quotas" in found["limits"]
        assert "limits" not in changed({"limits": None}, path)
        masked = changed({"claims": {"x": {"values": ["1"]}}}, path, update_mask="claims")
        assert set(masked["claims"]) == {"x"}
        null = call(hub, "PATCH", path, {"claims": {"x": None}}, update_mask="claims")
        assert (null.status, null.reason) == (400, "VALUE_INVALID")


def test_who_may_see_and_change_plans(hub: RunningHub, name: str) -> None:
    with consumer_with(hub) as made:
        headers = {"x-api-key": made.key.removeprefix("key:")}
        role = f"/v1/access/roles/{made.name}"

        def status(method: str, path: str, body: Any = None) -> int:
            return hub.request(method, path, headers=headers, json_body=body).status

        assert status("GET", "/v1/plans") == 403
        done(call(hub, "PATCH", role, {"permissions": ["plans.read"]}))
        hub.settle()
        assert status("GET", "/v1/plans") == status("GET", "/v1/plans:history") == 200
        assert status("POST", "/v1/plans", {"planId": name}) == 403
        done(call(hub, "PATCH", role, {"permissions": ["plans.write"]}))
        hub.settle()
        assert status("POST", "/v1/plans", {"planId": name}) == 200
        assert status("GET", "/v1/access/consumers") == 403, "plans are not access"
    stale = call(hub, "PATCH", f"/v1/plans/{name}", {"shadow": True}, policy_revision=1)
    assert stale.reason == "POLICY_CHANGED"
    only = call(hub, "PATCH", f"/v1/plans/{name}", {"shadow": True}, validate_only="true")
    assert done(only)["shadow"] is True
    assert "shadow" not in done(call(hub, "GET", f"/v1/plans/{name}"))
    wrong = call(hub, "POST", "/v1/plans", {"planId": "x", "rates": [{"perSecond": 0}]})
    assert set(wrong.violations()) == {"rates[0].perSecond", "rates[0].burst"}


def test_the_demo_has_plans(hub: RunningHub) -> None:
    found = {plan["planId"]: plan for plan in done(call(hub, "GET", "/v1/plans"))["plans"]}
    assert {"free", "partner", "internal"} <= found.keys()
    assert "rates" not in found["internal"] and found["partner"]["timeZone"] == "Europe/Berlin"
    assert done(call(hub, "GET", "/v1/access/consumers/crm"))["plan"] == "internal"
