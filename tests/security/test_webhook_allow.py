"""Networks that the operator opens to webhooks: the listed ones, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from harness import RunningHub, eventually, folder, new_customer
from penstockd.config import Settings
from penstockd.egress import LOOPBACK
from penstockd.up import demo_settings
from posted import receiving


def test_a_demo_adds_nothing_to_a_list_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_WEBHOOK_ALLOW", raising=False)
    assert demo_settings(Settings()).webhook_allow == tuple(LOOPBACK)
    for text, count in (("", 0), ("10.1.0.0/16", 1), ("10.1.0.0/16, ::1/128", 2)):
        monkeypatch.setenv("PENSTOCK_WEBHOOK_ALLOW", text)
        given = demo_settings(Settings()).webhook_allow
        assert given == Settings().webhook_allow and len(given) == count


def test_a_hub_posts_to_listed_networks_alone() -> None:
    """The whole path: refusals at creation, and refusals after a name's lookup."""
    listed = {"PENSTOCK_WEBHOOK_ALLOW": "10.1.0.0/16", "PENSTOCK_WORKERS": "1"}
    with folder() as data, receiving() as posts:
        hub = RunningHub(data / "hub", customers=1, environment=listed)
        hub.start()
        try:
            assert _create(hub, "http://10.1.2.3/").status == 200
            for refused in (posts.url, "https://127.0.0.1/", "https://10.2.0.1/", "http://[::1]/"):
                reply = _create(hub, refused)
                assert (reply.status, reply.reason) == (400, "WEBHOOK_URL_REFUSED"), refused
            port = posts.url.rpartition(":")[2]
            attempts = []
            for name in ("localhost", "not-there.invalid"):
                made = _create(hub, f"http://{name}:{port}/").json()["webhook"]["webhookId"]
                attempts.append(_first_attempt(hub, made))
        finally:
            hub.stop()
        assert not posts.taken
    told = [(a["reason"], a["responseHead"], a.get("address"), a["latency"]) for a in attempts]
    assert told[0] == told[1] and told[0][0] == "ADDRESS_REFUSED", "they are not told apart"


def _create(hub: RunningHub, url: str) -> Any:
    webhook = {"url": url, "selections": [{"dataset": "customers"}]}
    return hub.request("POST", "/v1/webhooks", consumer="admin", json_body=webhook)


def _first_attempt(hub: RunningHub, webhook_id: str) -> dict[str, Any]:
    """The first attempt to deliver something to a webhook."""
    path = f"/v1/webhooks/{webhook_id}/deliveries"
    record = new_customer()
    done = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert done.status == 200, done.text

    def tried() -> Any:
        listed = hub.get(path).json().get("deliveries", [])
        if not listed:
            return None
        return hub.get(f"{path}/{listed[0]['deliveryId']}").json().get("attempts")

    found: list[dict[str, Any]] = eventually(tried)
    return found[0]
