"""A drill: an installation is backed up while it runs, lost, and restored elsewhere.

Both kinds: the embedded database by ``penstock backup`` and ``restore``, to a time; an external
database by its own tools, and the files beside it by the same commands. Writes after the restored
state are undone, and every consumer that has received them is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from clusters import Cluster
from faults.downstream import Downstream
from faults.validator import State, read_table
from feeds import CATALOG
from harness import RunningHub, eventually, folder, free_port, new_customer
from penstockd.audit.checkpoint import CheckpointFile
from posted import receiving

SETTINGS = {
    "PENSTOCK_WORKERS": "1",
    "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "0.5",
    "PENSTOCK_WEBHOOK_ALLOW": "127.0.0.0/8",
}


@dataclass
class Site:
    """A hub with its vault, and the way to move its database elsewhere."""

    hub: RunningHub
    vault: Path

    def keep(self) -> None:
        """Back up the current state, in addition to earlier backups."""
        raise NotImplementedError

    def restore(self, data: Path) -> tuple[RunningHub, str]:
        """Restore the backed-up state to a hub with another data folder, which does not run; also
        returns the command's output."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop everything."""
        self.hub.stop()


class Embedded(Site):
    """A hub with the database in its data folder."""

    def keep(self) -> None:
        self.moment = self.hub.sql("SELECT clock_timestamp()")[0][0]

    def restore(self, data: Path) -> tuple[RunningHub, str]:
        # The data folder has its default name, which is relative to the working directory of the
        # command.
        with contextlib.chdir(self.hub.data.parent):
            name = self.hub.data.name
            self.hub.command("backup", str(self.vault.absolute()), "--wal", PENSTOCK_DATA_DIR=name)
        self.hub.stop()
        other = RunningHub(data, self.hub.port, secret="", environment=SETTINGS)
        done = other.command("restore", str(self.vault), "--to", self.moment.isoformat())
        return other, done.stdout.decode()


class Own(Site):
    """A hub with an external server."""

    def keep(self) -> None:
        self.dump = self.vault.parent / "dumped" / "hub.dump"
        self.here.dump(self.dump)

    @property
    def here(self) -> Cluster:
        return self.clusters[0]

    clusters: list[Cluster]

    def restore(self, data: Path) -> tuple[RunningHub, str]:
        self.hub.stop()
        self.here.stop()
        there = Cluster.create(self.vault.parent / "there")
        self.clusters.append(there)
        there.start(free_port())
        there.create_database()
        there.restore(self.dump)
        environment = {**SETTINGS, "PENSTOCK_DATABASE_URL": there.url}
        other = RunningHub(data, self.hub.port, secret="", environment=environment)
        return other, other.command("restore", str(self.vault)).stdout.decode()

    def end(self) -> None:
        super().end()
        for cluster in self.clusters:
            cluster.stop()


def embedded(data: Path) -> Site:
    hub = RunningHub(data / "hub", customers=20, environment=SETTINGS)
    return Embedded(hub, data / "vault")


def own(data: Path) -> Site:
    cluster = Cluster.create(data / "here")
    cluster.start(free_port())
    cluster.create_database()
    environment = {**SETTINGS, "PENSTOCK_DATABASE_URL": cluster.url}
    site = Own(RunningHub(data / "hub", customers=20, environment=environment), data / "vault")
    site.clusters = [cluster]
    return site


def written(hub: RunningHub, count: int) -> set[str]:
    """The keys of ``count`` new customers."""
    keys = set()
    for _ in range(count):
        body = new_customer()
        reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        keys.add(body["customerId"])
    hub.head()
    return keys


def newest(hub: RunningHub) -> str:
    hub.head()
    return str(hub.get("/v1/changes").json()["nextCursor"])


def table(hub: RunningHub) -> State:
    async def read() -> State:
        connection = await asyncpg.connect(hub.dsn)
        try:
            return await read_table(connection, CATALOG)
        finally:
            await connection.close()

    return asyncio.run(read())


def signed(hub: RunningHub) -> None:
    """Return when the file has a checkpoint that was signed from now on."""
    ((now,),) = hub.sql("SELECT now()")
    file = CheckpointFile(hub.data / "audit" / "checkpoints.jsonl")
    eventually(lambda: (last := file.last()) is not None and last.time > now)


def moved(downstream: Downstream, hub: RunningHub) -> None:
    """The consumer with a copy now uses the other hub."""
    downstream.hub = hub
    for subscribed in (downstream.worker, downstream.streamed):
        subscribed.hub = hub


@pytest.mark.parametrize("kind", [embedded, own])
def test_a_lost_installation_goes_on_elsewhere(
    kind: Callable[[Path], Site], tmp_path: Path
) -> None:
    with folder() as data, receiving() as posts:
        site = kind(data)
        try:
            site.hub.start()
            # The secret is being rotated: the backup has both, of which the old one still seals.
            eventually(lambda: site.hub.command("secret", "rotate"))
            site.hub.command("backup", str(site.vault))
            downstream = Downstream(site.hub, posts, tmp_path / "copy.db")
            kept = written(site.hub, 3)
            downstream.take(kept)
            good, state = newest(site.hub), table(site.hub)
            site.keep()
            lost = written(site.hub, 3)
            last = downstream.take(lost)
            bad = newest(site.hub)
            signed(site.hub)
            # The shipped part of the audit is newer than the backup, and is restored first.
            there = data / "there-hub"
            (there / "audit").mkdir(parents=True)
            shutil.copy(site.hub.data / "audit" / "checkpoints.jsonl", there / "audit")
            other, said = site.restore(there)
            shutil.copy(site.hub.data / "demo.json", there)
            assert "epoch 1 begins" in said and "was undone" in said
            lost_site, site.hub = site.hub, other
            assert not (lost_site.data / "ready").exists()
            other.command("up", "--detach")
            goes_on(other, state, good, bad)
            moved(downstream, other)
            downstream.is_told(last)
            downstream.is_equal()
            downstream.take(written(other, 1))
            downstream.was_told_once()
            done = eventually(lambda: other.command("audit", "verify"))
            assert b"RESTORE declared" in done.stdout
            assert len(secrets_of(other)) == 2
            if kind is embedded:  # what follows is the same for both
                is_rotated(other)
        finally:
            site.end()


def goes_on(hub: RunningHub, state: State, good: str, bad: str) -> None:
    """The hub has its earlier records and accepts the earlier credentials; the epoch is
    declared."""
    # Negative control: a cursor after the restored state is refused.
    reply = hub.request(
        "GET", "/v1/changes", headers={"x-api-key": hub.api_key}, query={"cursor": bad}
    )
    assert (reply.status, reply.reason) == (400, "CURSOR_INVALID"), reply.text
    assert table(hub) == state
    assert hub.get("/v1/changes", cursor=good).status == 200
    assert hub.sql("SELECT epoch, because, declared FROM hub.epoch") == [(1, "restore", True)]


def is_rotated(hub: RunningHub) -> None:
    """The rotation that had begun goes on, and ends: the new secret is alone in the data folder."""
    hub.sql("UPDATE hub.root_secret SET seal_time = now() WHERE seal_time > now()")
    old, new = secrets_of(hub)
    hub.stop()
    hub.command("up", "--detach")
    # Using a credential digests it again under the secret that seals now, and the first such digest
    # after a start is written soon.
    assert written(hub, 1)
    digested = "SELECT count(*) FROM hub.credential_digest WHERE root_secret_id = $1"
    eventually(lambda: hub.sql(digested, new)[0][0])
    new_text = (hub.data / "second-secret").read_text()
    hub.command("secret", "retire", old, "--now")
    assert (hub.data / "secret").read_text() == new_text
    assert not (hub.data / "second-secret").exists()
    assert secrets_of(hub) == [old, new]
    hub.stop()
    hub.command("up", "--detach")
    assert written(hub, 1)


def secrets_of(hub: RunningHub) -> list[str]:
    """The ids of the secrets that the database knows, in the order in which they seal."""
    done = hub.command("secret", "status", "--format", "json")
    return [s["secret_id"] for s in json.loads(done.stdout)["secrets"]]
