"""Signing keys rotate under traffic without a refusal, and immediately in an emergency."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import asyncpg
import grpc
import jwt

from harness import EVERY_WORKER, PATIENCE, RunningHub, eventually, in_force, read_log
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstockd.auth.keys import rotate_by_age
from penstockd.auth.secret import load_secret
from penstockd.keyring import SIGNING, KeyRing, Seal

PATH = "/v1/customers?page_size=1"
KEYS = "/v1/access/signing-keys"


def keys(hub: RunningHub) -> dict[str, str]:
    """The state of each key, as one worker reports it."""
    headers = {"x-api-key": hub.api_key}
    listed = hub.request("GET", KEYS, headers=headers).json()["keys"]
    return {key["keyId"]: key["state"] for key in listed}


def rotate(hub: RunningHub, *, now: bool = False) -> None:
    headers = {"x-api-key": hub.api_key}
    reply = hub.request("POST", f"{KEYS}:rotate", headers=headers, json_body={"now": now})
    assert reply.status == 200, reply.text


def new_token(hub: RunningHub) -> str:
    form = {"grant_type": "client_credentials"}
    form |= {k: hub.consumers["crm"][k] for k in ("client_id", "client_secret")}
    reply = hub.request(
        "POST",
        "/oauth2/token",
        body=urlencode(form).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    return str(reply.json()["access_token"])


def key_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def call(hub: RunningHub, token: str) -> int:
    return hub.request("GET", PATH, headers={"authorization": f"Bearer {token}"}).status


class Traffic:
    """Calls by REST and gRPC, with a new token each time and with the first one."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub, self.first = hub, new_token(hub)
        self.stopping = threading.Event()
        self.answers: list[tuple[str, str]] = []
        self.failed: list[BaseException] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(by,)) for by in (self._rest, self._rpc)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()
        assert not self.failed

    def _run(self, by: Any) -> None:
        try:
            while not self.stopping.wait(0.03):
                token = new_token(self.hub)
                for used in (token, self.first):
                    self.answers.append((key_of(used), by(used)))
        except Exception as error:
            self.failed.append(error)

    def _rest(self, token: str) -> str:
        return str(call(self.hub, token))

    def _rpc(self, token: str) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{self.hub.port}") as channel:
            try:
                CustomersStub(channel).ListCustomers(
                    api.ListCustomersRequest(page_size=1),
                    metadata=(("authorization", f"Bearer {token}"),),
                    timeout=PATIENCE,
                )
            except grpc.RpcError as error:
                refused: Any = error
                return str(refused.code().name)
        return "200"


def test_a_rotation_under_traffic_refuses_nobody(hub: RunningHub) -> None:
    """Envoy caches the key set for seconds: it must know the new key before the first token has
    it."""
    before = keys(hub)
    log = hub.data / "log" / "access.log"
    traffic = Traffic(hub)
    with traffic.running():
        rotate(hub)
        rotate(hub)  # a rotation that is under way is left alone
        (new,) = eventually(lambda: keys(hub).keys() - before.keys())
        in_force(lambda: new in keys(hub))
        assert keys(hub)[new] == "PUBLISHED"
        published = hub.request("GET", "/.well-known/jwks.json").json()["keys"]
        assert {key["kid"] for key in published} == {*before, new}
        # It would take a minute; Envoy asks every 5 s.
        hub.sql(
            "UPDATE hub.signing_key SET sign_time = now() + interval '7s' WHERE key_id = $1", new
        )
        eventually(lambda: keys(hub)[new] == "SIGNING")
        eventually(lambda: sum(key == new for key, _ in traffic.answers) > 20)
    assert {answer for _, answer in traffic.answers} == {"200"}
    assert len({key for key, _ in traffic.answers}) == 2
    states = keys(hub)
    assert [state for state in states.values()].count("SIGNING") == 1
    assert all(states[key] == "VERIFYING" for key in before)
    retires = hub.sql(
        "SELECT retire_time > now() + interval '15 min' FROM hub.signing_key WHERE key_id <> $1",
        new,
    )
    assert all(row == (True,) for row in retires)

    def envoy_knew() -> bool:
        """Whether the sidecar itself verified every token, including the first ones of the new
        key."""
        calls = [x for x in read_log(log) if (x.get("path") or "").startswith("/v1/customers")]
        return len(calls) > 20 and all(x["sub"] is not None for x in calls[-20:])

    eventually(envoy_knew)


def test_a_retired_key_is_deleted_and_its_tokens_with_it(hub: RunningHub) -> None:
    old = new_token(hub)

    async def age() -> str | None:
        connection: Any = await asyncpg.connect(hub.dsn)
        try:
            seal = Seal(KeyRing.of(load_secret(None, hub.data)).keys(SIGNING))
            async with connection.transaction():
                assert await rotate_by_age(connection, seal, timedelta(days=1)) is None
                return await rotate_by_age(connection, seal, timedelta())
        finally:
            await connection.close()

    new = asyncio.run(age())
    assert new is not None
    # Not earlier: another process may have begun to sign a moment ago, and the newest key signs.
    move = "UPDATE hub.signing_key SET sign_time = now() WHERE key_id = $1"
    hub.sql(move, new)
    in_force(lambda: key_of(new_token(hub)) == new)
    assert {call(hub, old) for _ in range(EVERY_WORKER)} == {200}
    hub.sql("UPDATE hub.signing_key SET retire_time = now() WHERE key_id <> $1", new)
    in_force(lambda: call(hub, old) == 401)
    asyncio.run(age())  # prunes, and finds the newest key too old again
    in_force(lambda: key_of(old) not in keys(hub))
    hub.tokens.clear()
    assert {call(hub, new_token(hub)) for _ in range(EVERY_WORKER)} == {200}


def test_a_key_in_wrong_hands_is_void_within_five_seconds(hub: RunningHub) -> None:
    old = new_token(hub)
    in_force(lambda: call(hub, old) == 200)
    rotate(hub, now=True)
    in_force(lambda: call(hub, old) == 401)
    hub.tokens.clear()
    states = keys(hub)
    assert list(states.values()) == ["SIGNING"]
    assert key_of(old) not in states
    in_force(lambda: call(hub, new_token(hub)) == 200)


def test_by_the_command_line(hub: RunningHub) -> None:
    known = keys(hub)
    printed = hub.command("keys", "list", PENSTOCK_API_KEY=hub.api_key).stdout.decode()
    assert all(key in printed for key in known)
    assert "SIGNING" in printed
    rotated = hub.command("keys", "rotate", PENSTOCK_API_KEY=hub.api_key).stdout.decode()
    assert "PUBLISHED" in rotated
