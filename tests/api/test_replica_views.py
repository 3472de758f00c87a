"""Replicas of a consumer while its role is narrowed and widened."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import PATIENCE, RunningHub, eventually, new_customer
from penstock.client import Client, PenstockError, Replica

CLASSES = dict.fromkeys(("PUBLIC", "INTERNAL", "PII", "SENSITIVE"), "clear")


class Partner:
    """A consumer that sees the customers of one source as far as its role allows."""

    def __init__(self, hub: RunningHub, path: Path) -> None:
        self.name = f"t-{uuid.uuid4().hex[:8]}"
        self._hub, self._path = hub, path
        self.hidden: set[str] = set()
        self.shown: set[str] = set()
        self._admin("POST", "/access/roles", {"roleId": self.name, "grants": [self._grant()]})
        self._admin("POST", "/access/consumers", {"consumerId": self.name, "roles": [self.name]})
        credentials = f"/access/consumers/{self.name}/credentials"
        self.key = self._admin("POST", credentials, {"kind": "API_KEY"})["secret"]
        hub.settle()

    def write(self) -> None:
        """Write a customer that is always visible and one that the narrow role hides."""
        for status, keys in (("ACTIVE", self.shown), ("CHURNED", self.hidden)):
            record = new_customer(source=self.name, status=status, email="a@example.com")
            keys.add(self._admin("POST", "/customers", record)["customerId"])

    def narrow(self) -> None:
        """Let it see only active customers, without their addresses."""
        self._allow(self._grant(" AND status = ACTIVE", email="hide"))

    def widen(self) -> None:
        """Let it see everything of its source again."""
        self._allow(self._grant())

    def forbid(self) -> None:
        """Let it read no customers."""
        self._allow()

    def kept(self) -> dict[str, str | None]:
        """The keys and addresses in the replica, read on another connection."""
        with closing(sqlite3.connect(self._path, timeout=PATIENCE)) as connection:
            return dict(connection.execute("SELECT customer_id, email FROM customers").fetchall())

    @property
    def narrowed(self) -> dict[str, str | None]:
        """The expected replica while the role is narrow."""
        return dict.fromkeys(self.shown)

    @property
    def whole(self) -> dict[str, str | None]:
        """The expected replica while the role is wide."""
        return dict.fromkeys(self.shown | self.hidden, "a@example.com")

    def remove(self) -> None:
        """Remove everything of it from the hub."""
        self._admin("DELETE", f"/access/consumers/{self.name}")
        self._admin("DELETE", f"/access/roles/{self.name}")
        for key in self.shown | self.hidden:
            self._admin("DELETE", f"/customers/{key}")

    def _grant(self, rows: str = "", **masks: str) -> dict[str, Any]:
        return {
            "dataset": "customers",
            "actions": ["read"],
            "classMasks": CLASSES,
            "fieldMasks": masks,
            "rowFilter": f'source = "{self.name}"{rows}',
        }

    def _allow(self, *grants: dict[str, Any]) -> None:
        path = f"/access/roles/{self.name}?update_mask=grants"
        self._admin("PATCH", path, {"grants": grants})
        self._hub.settle()

    def _admin(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._hub.request(method, f"/v1{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()


@pytest.fixture
def partner(hub: RunningHub, tmp_path: Path) -> Iterator[Partner]:
    partner = Partner(hub, tmp_path / "replica.db")
    try:
        for _ in range(3):
            partner.write()
        yield partner
    finally:
        partner.remove()


@pytest.fixture
def opened(hub: RunningHub, partner: Partner, tmp_path: Path) -> Iterator[Callable[[], Replica]]:
    """Each call continues the same replica, as another process would."""
    path = tmp_path / "replica.db"
    with (
        Client(hub.url, api_key=partner.key) as client,
        closing(sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)) as connection,
    ):
        yield lambda: Replica(client, "customers", connection)


@contextmanager
def following(replica: Replica) -> Iterator[list[PenstockError]]:
    """Runs the replica in a thread during the block; the list gets the error that ended it
    early."""
    ends: list[PenstockError] = []

    def follow() -> None:
        try:
            replica.follow()
        except PenstockError as error:
            ends.append(error)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield ends
    finally:
        replica.close()
        follower.join()


def test_a_sync_repairs_what_a_role_has_changed(
    partner: Partner, opened: Callable[[], Replica]
) -> None:
    replica = opened()
    replica.sync()
    assert partner.kept() == partner.whole and not replica.repairs
    partner.narrow()
    partner.write()
    assert partner.kept() != partner.narrowed, "nobody has told it yet"
    replica.sync()
    assert partner.kept() == partner.narrowed
    (found,) = replica.repairs
    assert (found.upserts, found.deletes) == (4, 3)
    verified = replica.verify()
    assert verified.equal and verified.rows == 4
    partner.widen()
    replica.sync()
    assert partner.kept() == partner.whole
    assert [found.upserts for found in replica.repairs] == [4, 8]
    verified = replica.verify()
    assert verified.equal and verified.rows == 8


def test_an_open_follower_repairs_itself(partner: Partner, opened: Callable[[], Replica]) -> None:
    replica = opened()
    with following(replica) as ends:
        eventually(lambda: partner.kept() == partner.whole)
        for change in (partner.narrow, partner.widen, partner.narrow, partner.widen):
            change()
            # Later writes arrive as changes if they are visible.
            partner.write()
            wanted = partner.narrowed if change == partner.narrow else partner.whole
            eventually(partial(lambda wanted: partner.kept() == wanted, wanted))
        assert not ends and len(replica.repairs) >= 4
    assert not ends
    verified = opened().verify()
    assert verified.equal and verified.rows == len(partner.whole)


def test_a_follower_ends_where_there_is_no_access_any_more(
    partner: Partner, opened: Callable[[], Replica]
) -> None:
    replica = opened()
    with following(replica) as ends:
        eventually(lambda: partner.kept() == partner.whole)
        partner.forbid()
        eventually(lambda: ends)
        # A worker that heard of it first refuses; one that had the stream ends it.
        assert ends[0].reason in ("ACCESS_CHANGED", "PERMISSION_DENIED")
    assert partner.kept() == partner.whole
