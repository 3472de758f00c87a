"""R13: the database goes back in time, under a hub that runs on.

A standby that had not received all takes over, a dump is restored into another cluster, a volume
is put back as it was copied, once and twice, a backup is recovered to a point. Each time some
acknowledged writes are undone and their numbers given out again. Cursors of before the fork go on,
exactly; those of what was undone are refused for ever, also when the log has passed their numbers;
a stream that gave out what was undone ends, and its consumer is told to repair. Subscriptions,
webhooks and replicas are told, too. ``PENSTOCK_R13_ROUNDS`` is how often each is done.
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
from faults.state import marks_at, table_at
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


class World:
    """A hub on a port behind which servers come and go; ``here`` is the one of now."""

    def __init__(self, data: Path) -> None:
        self.data, self.port, self._count = data, free_port(), 0
        self.here = Cluster.create(self.fresh())
        self.here.start(self.port)
        self.here.create_database()
        environment = {
            "PENSTOCK_DATABASE_URL": self.here.url,
            "PENSTOCK_WORKERS": "2",
            "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "0.5",
            "PENSTOCK_WEBHOOK_ALLOW": "127.0.0.0/8",
        }
        self.hub = RunningHub(data / "hub", customers=20, environment=environment)

    def fresh(self) -> Path:
        """A folder that is not there yet."""
        self._count += 1
        return self.data / f"pg{self._count}"

    def take_over(self, other: Cluster) -> None:
        """Another server, which does not run, takes the place of the one of now."""
        self.here.kill()
        other.stop()
        other.start(self.port)
        self.here = other

    def create(self) -> Write | None:
        """A new customer as it was acknowledged, or None."""
        mark = f"r13-{uuid.uuid4().hex[:10]}"
        record = new_customer(sourceId=mark)
        reply = self.hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        if reply.status != 200:
            return None
        return Write("customers", reply.json()["customerId"], mark)

    def written(self, count: int) -> list[Write]:
        """So many customers, each of a transaction of its own; tried until they are there."""
        return [eventually(self.create) for _ in range(count)]

    def table(self) -> State:
        """All records as the database has them."""
        return table_at(self.here.url, CATALOG)

    def marks(self) -> dict[int, bytes]:
        """The marks of the log."""
        return marks_at(self.here.url)

    def signed(self) -> None:
        """Return when the file has a checkpoint that was signed after now."""
        ((now,),) = self.here.sql("SELECT now()")
        file = CheckpointFile(self.hub.data / "audit" / "checkpoints.jsonl")
        eventually(lambda: (last := file.last()) is not None and last.time > now)

    def verified(self) -> tuple[int, str]:
        """What ``penstock audit verify`` says, and with what it ends."""
        done = self.hub.command("audit", "verify", check=False)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def epochs(self) -> list[tuple[int, bool]]:
        """All that have begun, and whether they are declared."""
        rows = self.here.sql("SELECT epoch, declared FROM hub.epoch ORDER BY epoch")
        return [(row[0], row[1]) for row in rows]

    def revision(self) -> int:
        """The one that was given out last: etags are made of it."""
        return int(self.here.sql("SELECT last_value FROM hub.revision")[0][0])

    def alarmed(self) -> bool:
        """Whether health says that the database has gone back and nobody has declared it."""
        with grpc.insecure_channel(self.hub.url.removeprefix("http://")) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(service="epochs"), timeout=PATIENCE)
        return bool(reply.status == health_pb2.HealthCheckResponse.NOT_SERVING)

    def head(self) -> int:
        """The number of the newest change."""
        return self.hub.head()

    def newest(self) -> str:
        """The cursor of now, as a poll without one gives it, from whichever worker has the database
        again."""
        self.head()

        def answer() -> Any:
            reply = self.hub.get("/v1/changes")
            return reply if reply.status != 503 else None

        reply = eventually(answer)
        assert reply.status == 200, reply.text
        return str(reply.json()["nextCursor"])


#: Secures the state of now; what it returns brings the database back to it.
Kind = Callable[[World], Callable[[], None]]


def failover(world: World) -> Callable[[], None]:
    standby = world.here.standby(world.fresh())
    standby.start(free_port())
    eventually(lambda: standby.caught_up(world.here))
    standby.stop()  # cut off: what is written from now on it does not receive

    def back() -> None:
        world.take_over(standby)
        a_standby_is_an_outage(world)
        standby.promote()

    return back


def a_standby_is_an_outage(world: World) -> None:
    """A server that takes no writes: health says so, calls are refused at once, and no log holds a
    traceback for each."""
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
        world.here.restore_point(f"after-{point}")  # what the archive has goes further than that
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
    """Let the judge see all that a stream tells, to a number."""
    while number(judge.cursor) < place:
        judge.message(stream.read())


def is_told_to_repair(hub: RunningHub, stream: Stream) -> bool:
    """Whether the stream ends with REPAIR, or so does what goes on from where it broke off."""
    code, reason = stream.failure()
    if reason == "CURSOR_INVALID":
        assert stream.end is not None and stream.end.reconcile == changes_pb2.REPAIR
        return True
    # It noticed that the database was away; its consumer comes back.
    assert code is grpc.StatusCode.UNAVAILABLE, (code, reason)
    return refused(hub, dataset="", cursor=stream.cursor) == REFUSED


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
    # From the fork, and from before it: exactly what followed, and images of nothing else.
    follows_exactly(world, fork, state, new)
    with watch(hub, "admin", "", cursor=before, include_before=True) as again:
        keys = {e.key for e in again.to(world.head())}
    assert keys >= {w.key for w in (*kept, *new)} and keys.isdisjoint(w.key for w in lost)
    snapshot_is_the_table(world)
    downstream.is_told(last)
    downstream.is_equal()
    noticed_once = world.epochs()
    audit_goes_on(world)
    # The declaration is of the epoch that the hub had begun: nobody is told twice.
    assert world.epochs() == [(epoch, True) for epoch, _ in noticed_once]
    eventually(lambda: not world.alarmed())
    downstream.was_told_once()
    downstream.end()


def answer_to(hub: RunningHub, cursor: str) -> tuple[str, str]:
    """What the hub says to a cursor that it refuses, once its workers have the database again."""

    def answer() -> tuple[str, str] | None:
        found = refused(hub, dataset="", cursor=cursor)
        return found if found[0] != "UNAVAILABLE" else None

    return tuple(eventually(answer))


def undone_stay_refused(world: World, undone: list[str], lost_head: int) -> list[Write]:
    """Cursors of what was undone are refused before the log has passed their numbers, while it
    does, and afterwards. Returns what was written meanwhile."""
    aliased: list[str] = []
    new: list[Write] = []
    while world.head() <= lost_head + 2:
        for cursor in undone:
            assert answer_to(world.hub, cursor) == REFUSED
        aliased += [c for c in undone if PLACES.open(c).number <= world.head()]
        new += world.written(2)
    # Negative control: going by the number alone, every one of them would have been accepted.
    assert set(aliased) == set(undone)
    return new


def follows_exactly(world: World, fork: str, state: State, new: list[Write]) -> None:
    """The feed from the fork leads from the state there to the table of now."""
    judge = Judge(FeedValidator(CATALOG, number(fork), dict(state)), fork)
    head = world.head()
    with watch(world.hub, "admin", "", cursor=fork, include_before=True) as stream:
        judged(world, stream, judge, head)
    judge.validator.finish(world.table(), new, new, world.marks())
    judge.validator.check()


def snapshot_is_the_table(world: World) -> None:
    """A feed without a cursor begins with the records as they are."""
    with watch(world.hub, "admin", "customers", snapshot=True) as whole:
        whole.until(lambda: whole.marks)
        keys = {e.key for e in whole.events}
    assert keys == {key for dataset, key in world.table() if dataset == "customers"}


def noticed(world: World, before: list[tuple[int, bool]], lost_revision: int) -> None:
    """Before anything was written, the hub began one epoch by itself, however many processes it
    has; revisions go on from where none that was undone is; and there is an alarm."""
    assert world.epochs() == [*before, (max((e for e, _ in before), default=0) + 1, False)]
    assert world.revision() > lost_revision
    eventually(world.alarmed)


def audit_goes_on(world: World) -> None:
    """The audit has lost what the file of checkpoints has: it is declared, and goes on from there;
    what was sealed before is not sealed again."""
    status, said = world.verified()
    assert status == 1 and "NOT INTACT" in said, said
    done = world.hub.command("epoch", "new", "--because", "restore")
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
    """Both futures begin with the same numbers, that of the epoch included; nobody takes the one
    for the other."""
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
        if future == 0:  # until the return is declared, no later checkpoint follows the file
            world.signed()
        lost_head = max(lost_head, world.head())
        back()
        eventually(lambda: len(world.epochs()) == len(before) + 1)
        begun += world.here.sql("SELECT epoch, id::text FROM hub.epoch_head")
    new = undone_stay_refused(world, undone, lost_head)
    follows_exactly(world, fork, state, new)
    (one, other), ids = zip(*begun, strict=True)
    assert one == other  # negative control: by the number they are one epoch
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
