"""R13: the database returns to an earlier state while the hub keeps running.

Cases: a standby takes over that had not received everything; a dump is restored into another
cluster; a copy of the volume is put back, once and twice; a backup is recovered to a point. Each
undoes some acknowledged writes and gives out their numbers again. Cursors from before the fork
continue exactly. Cursors of undone changes are refused for ever, even after the log has passed
their numbers. A stream that delivered undone changes ends and tells its consumer to repair.
Subscriptions, webhooks and replicas are told, too. ``PENSTOCK_R13_ROUNDS`` is the number of rounds
of each case.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clusters import Cluster
from faults.downstream import Downstream
from faults.server_place import ServerPlace
from faults.streams import Judge
from faults.validator import FeedValidator, State, Write
from feeds import CATALOG, Stream, failure, number, refused, watch
from harness import PATIENCE, RunningHub, eventually, folder, free_port, new_customer
from penstock.hub.v1 import changes_pb2
from penstockd.audit.checkpoint import CheckpointFile
from penstockd.store.cursor import Cursor
from places import PLACES
from posted import Posts, receiving

pytestmark = pytest.mark.lane(priority=10)

LOST, NEW = 6, 10
REFUSED = ("INVALID_ARGUMENT", "CURSOR_INVALID")


class World(ServerPlace):
    """A hub on a port behind which servers change; ``here`` is the current one."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        environment = {
            "PENSTOCK_DATABASE_URL": self.here.url,
            "PENSTOCK_WORKERS": "2",
            "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "0.5",
            "PENSTOCK_WEBHOOK_ALLOW": "127.0.0.0/8",
        }
        self.hub = RunningHub(data / "hub", customers=20, environment=environment)

    def take_over(self, other: Cluster) -> None:
        """Replace the current server by another, which does not run yet."""
        self.here.kill()
        other.stop()
        other.start(self.port)
        self.here = other

    def create(self) -> Write | None:
        """A new customer if it was acknowledged, else None."""
        mark = f"r13-{uuid.uuid4().hex[:10]}"
        record = new_customer(sourceId=mark)
        reply = self.hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        if reply.status != 200:
            return None
        return Write("customers", reply.json()["customerId"], mark)

    def written(self, count: int) -> list[Write]:
        """That many customers, each in a transaction of its own; retried until they are stored."""
        return [eventually(self.create) for _ in range(count)]

    def signed(self) -> None:
        """Return when the file has a checkpoint that was signed from now on."""
        ((now,),) = self.here.sql("SELECT now()")
        file = CheckpointFile(self.hub.data / "audit" / "checkpoints.jsonl")
        eventually(lambda: (last := file.last()) is not None and last.time > now)

    def verified(self) -> tuple[int, str]:
        """The output of ``penstock audit verify``, and its exit code."""
        done = self.hub.command("audit", "verify", check=False)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def epochs(self) -> list[tuple[int, bool]]:
        """All epochs so far, and whether each is declared."""
        rows = self.here.sql("SELECT epoch, declared FROM hub.epoch ORDER BY epoch")
        return [(row[0], row[1]) for row in rows]

    def revision(self) -> int:
        """The newest revision; etags are made of revisions."""
        return int(self.here.sql("SELECT last_value FROM hub.revision")[0][0])

    def alarmed(self) -> bool:
        """Whether health reports that the database has gone back and that nobody has declared
        it."""
        with grpc.insecure_channel(self.hub.url.removeprefix("http://")) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(service="epochs"), timeout=PATIENCE)
        return bool(reply.status == health_pb2.HealthCheckResponse.NOT_SERVING)

    def head(self) -> int:
        """The number of the newest change."""
        return self.hub.head()

    def newest(self) -> str:
        """The current cursor, as a poll without a cursor returns it, from any worker that has the
        database again."""
        self.head()

        def answer() -> Any:
            reply = self.hub.get("/v1/changes")
            return reply if reply.status != 503 else None

        reply = eventually(answer)
        assert reply.status == 200, reply.text
        return str(reply.json()["nextCursor"])


#: Backs up the current state; the function that it returns restores the database to it.
Kind = Callable[[World], Callable[[], None]]


def failover(world: World) -> Callable[[], None]:
    standby = world.here.standby(world.fresh())
    standby.start(free_port())
    eventually(lambda: standby.caught_up(world.here))
    standby.stop()  # cut off: it receives no later writes

    def back() -> None:
        world.take_over(standby)
        a_standby_is_an_outage(world)
        standby.promote()

    return back


def a_standby_is_an_outage(world: World) -> None:
    """A server that takes no writes: health reports it, calls are refused at once, and logs do not
    fill with tracebacks."""
    hub = world.hub

    def tracebacks() -> int:
        logs = (hub.data / "log").glob("*.log")
        return sum(log.read_text(errors="replace").count("Traceback") for log in logs)

    eventually(lambda: hub.request("GET", "/healthz").status == 503)
    before = tracebacks()
    for _ in range(10):
        for path in ("/v1/customers?page_size=1", "/v1/changes"):
            headers = {"x-api-key": hub.api_key}
            assert hub.request("GET", path, headers=headers).status == 503
        assert world.create() is None
    assert tracebacks() == before


def dump(world: World) -> Callable[[], None]:
    file = world.fresh() / "hub.dump"
    world.here.dump(file)

    def back() -> None:
        other = Cluster.create(world.fresh())
        other.start(free_port())
        other.create_database()
        other.restore(file)
        world.take_over(other)

    return back


def copy_in_place(world: World) -> Callable[[], None]:
    kept = world.fresh()
    world.here.stop()
    world.here.copy(kept)
    world.here.start(world.port)

    def back() -> None:
        world.here.kill()
        world.here.put_back(kept)
        world.here.start(world.port)

    return back


def point_in_time(world: World) -> Callable[[], None]:
    backup = world.here.backup(world.fresh())
    world.written(2)
    world.hub.head()
    point = f"point-{uuid.uuid4().hex[:8]}"
    world.here.restore_point(point)
    backup.recover_to(point)

    def back() -> None:
        world.here.restore_point(f"after-{point}")  # the archive has later changes, too
        world.take_over(backup)
        eventually(lambda: backup.sql("SELECT pg_is_in_recovery()") == [(False,)])

    return back


KINDS = [failover, dump, copy_in_place, point_in_time] * int(
    os.environ.get("PENSTOCK_R13_ROUNDS", "1")
)


@pytest.fixture(scope="module")
def posts() -> Iterator[Posts]:
    with receiving() as posts:
        yield posts


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with folder() as data:
        made = World(data)
        try:
            made.hub.start()
            yield made
        finally:
            made.hub.stop()
            made.here.stop()


def judged(world: World, stream: Stream, judge: Judge, place: int) -> None:
    """Let the judge see everything on a stream, up to a number."""
    while number(judge.cursor) < place:
        judge.message(stream.read())


def is_told_to_repair(hub: RunningHub, stream: Stream) -> bool:
    """Whether the stream ends with REPAIR, or the stream that continues after a break does."""
    code, reason = stream.failure()
    if reason == "CURSOR_INVALID":
        assert stream.end is not None and stream.end.reconcile == changes_pb2.REPAIR
        return True
    # It noticed the outage of the database; its consumer reconnects.
    assert code is grpc.StatusCode.UNAVAILABLE, (code, reason)
    return answer_to(hub, stream.cursor) == REFUSED


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_database_goes_back_in_time(
    world: World, posts: Posts, kind: Kind, tmp_path: Path
) -> None:
    hub = world.hub
    downstream = Downstream(hub, posts, tmp_path / "copy.db")
    before = world.newest()
    kept = world.written(3)
    world.head()
    downstream.take({w.key for w in kept})
    back = kind(world)
    eventually(lambda: hub.get("/v1/customers", page_size=1).status == 200)
    fork, state = world.newest(), world.table()
    epochs = world.epochs()
    with watch(hub, "admin", "", cursor=fork, include_before=True) as stream:
        lost = world.written(LOST)
        world.signed()
        lost_head = world.head()
        told = [e.key for e in stream.to(lost_head)]
        assert told == [w.key for w in lost]
        last = downstream.take({w.key for w in lost})
        undone = [cursor for cursor, _ in stream.marks]
        assert number(undone[-1]) == lost_head
        lost_revision = world.revision()
        back()
        new = world.written(1)
        noticed(world, epochs, lost_revision)
        assert is_told_to_repair(hub, stream)
    assert world.table().keys().isdisjoint(("customers", w.key) for w in lost)
    new += undone_stay_refused(world, undone, lost_head)
    # From the fork, and from before it: exactly the later changes, and no image of anything else.
    follows_exactly(world, fork, state, new)
    with watch(hub, "admin", "", cursor=before, include_before=True) as again:
        keys = {e.key for e in again.to(world.head())}
    assert keys >= {w.key for w in (*kept, *new)} and keys.isdisjoint(w.key for w in lost)
    snapshot_is_the_table(world)
    downstream.is_told(last)
    downstream.is_equal()
    noticed_once = world.epochs()
    audit_goes_on(world)
    # The declaration is about the epoch that the hub itself began: nobody is told twice.
    assert world.epochs() == [(epoch, True) for epoch, _ in noticed_once]
    eventually(lambda: not world.alarmed())
    downstream.was_told_once()
    downstream.end()


def answer_to(hub: RunningHub, cursor: str) -> tuple[str, str]:
    """The hub's answer to a cursor that it refuses, once its workers have the database again."""

    def answer() -> tuple[str, str] | None:
        found = refused(hub, dataset="", cursor=cursor)
        return found if found[0] != "UNAVAILABLE" else None

    return tuple(eventually(answer))


def undone_stay_refused(world: World, undone: list[str], lost_head: int) -> list[Write]:
    """Cursors of undone changes are refused before, while and after the log passes their numbers.
    Returns the writes made meanwhile."""
    aliased: list[str] = []
    new: list[Write] = []
    while world.head() <= lost_head + 2:
        for cursor in undone:
            assert answer_to(world.hub, cursor) == REFUSED
        aliased += [c for c in undone if PLACES.open(c).number <= world.head()]
        new += world.written(2)
    # Negative control: by the number alone, each of them would have been accepted.
    assert set(aliased) == set(undone)
    return new


def follows_exactly(world: World, fork: str, state: State, new: list[Write]) -> None:
    """The feed from the fork leads from the state there to the current table."""
    judge = Judge(FeedValidator(CATALOG, number(fork), dict(state)), fork)
    head = world.head()
    with watch(world.hub, "admin", "", cursor=fork, include_before=True) as stream:
        judged(world, stream, judge, head)
    judge.validator.finish(world.table(), new, new, world.marks())
    judge.validator.check()


def snapshot_is_the_table(world: World) -> None:
    """A feed without a cursor begins with the current records."""
    with watch(world.hub, "admin", "customers", snapshot=True) as whole:
        whole.until(lambda: whole.marks)
        keys = {e.key for e in whole.events}
    assert keys == {key for dataset, key in world.table() if dataset == "customers"}


def noticed(world: World, before: list[tuple[int, bool]], lost_revision: int) -> None:
    """The hub by itself began one epoch before any write, however many processes it has. Revisions
    continue above all undone ones, and there is an alarm."""
    assert world.epochs() == [*before, (max((e for e, _ in before), default=0) + 1, False)]
    assert world.revision() > lost_revision
    eventually(world.alarmed)


def audit_goes_on(world: World) -> None:
    """The audit lacks entries that the file of checkpoints covers: the gap is declared, and the
    audit continues; sealed entries are not sealed again."""
    status, said = world.verified()
    assert status == 1 and "NOT INTACT" in said, said
    # The hub seals all the time, so the command may say "try again".
    done = eventually(lambda: world.hub.command("epoch", "new", "--because", "restore"))
    assert b"was undone" in done.stdout
    world.written(1)
    ((sealed, entries),) = world.here.sql(
        "SELECT (SELECT sum(cardinality(entry_ids)) FROM hub.audit_seal),"
        " (SELECT count(*) FROM hub.audit_entry)"
    )
    assert sealed <= entries
    said = eventually(lambda: (done := world.verified())[0] == 0 and done[1])
    assert "RESTORE declared" in said, said


def test_a_volume_is_put_back_twice(world: World) -> None:
    """Both futures begin with the same numbers, the epoch's included; neither is mistaken for the
    other."""
    back = copy_in_place(world)
    eventually(lambda: world.hub.get("/v1/customers", page_size=1).status == 200)
    fork, state = world.newest(), world.table()
    before = world.epochs()
    undone: list[str] = []
    begun: list[tuple[int, str]] = []
    lost_head = 0
    for future in range(2):
        for _ in range(3):
            world.written(1)
            undone.append(world.newest())
        if future == 0:  # until the return is declared, the file gets no later checkpoint
            world.signed()
        lost_head = max(lost_head, world.head())
        back()
        eventually(lambda: len(world.epochs()) == len(before) + 1)
        begun += world.here.sql("SELECT epoch, id::text FROM hub.epoch_head")
    new = undone_stay_refused(world, undone, lost_head)
    follows_exactly(world, fork, state, new)
    (one, other), ids = zip(*begun, strict=True)
    assert one == other  # negative control: by the number they are the same epoch
    assert len(set(ids)) == 2 and len(world.epochs()) == len(before) + 1
    audit_goes_on(world)


def test_refusals_say_what_to_do(world: World) -> None:
    cursor = world.newest()
    found = PLACES.open(cursor)
    forged = PLACES.seal(Cursor(found.epoch, found.number, mark=b"\0" * 8))
    reply = world.hub.get("/v1/changes", cursor=forged)
    assert (reply.status, reply.reason) == (400, "CURSOR_INVALID")
    (info,) = [d for d in reply.json()["details"] if d["@type"].endswith("ErrorInfo")]
    assert info["metadata"]["reconcile"] == "REPAIR"
    with pytest.raises(grpc.RpcError) as raised, watch(world.hub, "admin", "", cursor=forged):
        pass
    assert failure(raised.value)[1] == "CURSOR_INVALID"
