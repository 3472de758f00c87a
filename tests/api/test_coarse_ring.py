"""The keeper tells the sidecar the plans' highest rate when it changes."""

from __future__ import annotations

import uuid

from harness import RunningHub, eventually
from penstockd.node.sockets import sockets_folder


def test_a_plan_reaches_the_sidecar(hub: RunningHub) -> None:
    """The plan allows more than PENSTOCK_RATE_LIMIT, which other consumers of the hub have."""
    limits = sockets_folder(hub.data) / "limits.yaml"
    mark = "max_tokens: 500000, tokens_per_fill: 200000"
    assert mark not in limits.read_text()
    name = f"t-{uuid.uuid4().hex[:8]}"
    plan = {"planId": name, "rates": [{"perSecond": 199_999.5, "burst": 300_000}]}
    made = hub.request("POST", "/v1/plans", consumer="admin", json_body=plan)
    assert made.status == 200, made.text
    try:
        eventually(lambda: mark in limits.read_text())
    finally:
        gone = hub.request("DELETE", f"/v1/plans/{name}", consumer="admin")
        assert gone.status == 200, gone.text
    eventually(lambda: mark not in limits.read_text())
