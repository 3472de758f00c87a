"""Without news of its access rules the hub refuses everybody, although it could answer."""

from __future__ import annotations

from urllib.parse import urlencode

import grpc

from harness import EVERY_WORKER, Reply, RunningHub, eventually, folder, promptly, timed
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub

SECONDS = 3
PATH = "/v1/customers?page_size=1"
LOCK = "BEGIN; LOCK TABLE hub.policy IN ACCESS EXCLUSIVE MODE"


def answers(hub: RunningHub) -> list[Reply]:
    """The replies to several calls: each worker answers some of them."""
    headers = {"x-api-key": hub.api_key}
    return [hub.request("GET", PATH, headers=headers) for _ in range(EVERY_WORKER)]


def ask_for_token(hub: RunningHub) -> Reply:
    form = {"grant_type": "client_credentials"}
    form |= {k: hub.consumers["crm"][k] for k in ("client_id", "client_secret")}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return hub.request("POST", "/oauth2/token", body=urlencode(form).encode(), headers=headers)


def until_refused(hub: RunningHub) -> float:
    """The time for which calls are accepted without news; not shorter than the setting.

    The last reading of the policy is up to a second old when the news end, and older if the machine
    stood still: then it is tried again.
    """
    with hub.holding(LOCK):
        taken = timed(lambda: {r.status for r in answers(hub)} == {503})
    eventually(lambda: {r.status for r in answers(hub)} == {200})
    return taken if taken > SECONDS - 2 else float("inf")


def test_fail_closed() -> None:
    with folder() as data:
        environment = {"PENSTOCK_POLICY_STALE_SECONDS": str(SECONDS)}
        hub = RunningHub(data / "hub", customers=20, environment=environment)
        hub.start()
        try:
            # On a slow machine even a policy that is read every second may sometimes be too old.
            eventually(lambda: {reply.status for reply in answers(hub)} == {200})
            metadata = hub.metadata("crm")
            # Nobody can read which revision is in force; the rest of the database works.
            promptly(SECONDS + 3, lambda: until_refused(hub))
            with hub.holding(LOCK):
                eventually(lambda: {r.status for r in answers(hub)} == {503})
                assert {reply.reason for reply in answers(hub)} == {"POLICY_STALE"}
                token = ask_for_token(hub)
                assert (token.status, token.reason) == (503, "POLICY_STALE")
                assert hub.request("GET", "/.well-known/jwks.json").status == 200
                with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
                    request = api.ListCustomersRequest(page_size=1)
                    call = CustomersStub(channel).ListCustomers.with_call
                    try:
                        call(request, metadata=metadata)
                    except grpc.RpcError as error:
                        assert error.code() is grpc.StatusCode.UNAVAILABLE
                    else:
                        raise AssertionError("a call was let in")
                outcomes = "SELECT DISTINCT outcome FROM hub.audit_entry"
                eventually(lambda: ("POLICY_STALE",) in hub.sql(outcomes))
            eventually(lambda: {r.status for r in answers(hub)} == {200})
        finally:
            hub.stop()
