"""The types of webhooks: endpoints, what is sent to them, when, and with what result."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstockd.feed.event import Event, FeedOperation
from penstockd.shapes.using import ChosenShape

#: Seconds to wait after the first failed attempt and after each later one: ten attempts over 75 h
#: 35 min.
DEFAULT_SCHEDULE = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
#: The most events in one message.
MAX_BATCH = 100
#: The operations that endpoints may select, by their words: all but SNAPSHOT.
OPERATIONS = tuple(o.word for o in FeedOperation if o is not FeedOperation.SNAPSHOT)

#: The random share by which a retry is early or late, so that messages that failed together spread
#: out.
JITTER = 0.2
#: The longest delay that a receiver can request with Retry-After.
MAX_RETRY_AFTER = timedelta(days=1)
Clock = Callable[[], datetime]
#: Returns a number from 0 up to, but not including, 1.
Chance = Callable[[], float]


class WebhookKind(enum.StrEnum):
    """HTTP is posted to; LISTEN is pulled by a developer's command, and expires when that stops."""

    HTTP = "HTTP"
    LISTEN = "LISTEN"


class State(enum.StrEnum):
    """PAUSED: new deliveries wait. DISABLED: they are dead at once, but can be recovered later."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"


class DeliveryState(enum.StrEnum):
    """The state of a delivery; PARKED waits for an earlier one of the same record."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    PARKED = "PARKED"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Cause(enum.StrEnum):
    """The cause of a delivery."""

    EVENT = "EVENT"
    REPLAY = "REPLAY"
    TEST = "TEST"
    NOTICE = "NOTICE"


class Reason(enum.StrEnum):
    """The reason why an attempt failed, a delivery is dead, or an endpoint is disabled.

    NOT_SENT: the hub itself failed to send it, and its log has the reason. NOT_VISIBLE: the owner's
    View no longer shows anything of it. ACCESS_LOST: the owner may no longer read the dataset, or
    own webhooks. ADDRESS_REFUSED: the name has no address that the hub may connect to, or does not
    exist. EVENT_EXPIRED: the event is gone, or the View has changed and the log no longer has the
    event to show it again. SHAPE_UNFIT: the records are too large in the endpoint's shape.
    RECORD_UNREADABLE: the model cannot read a queued record, and the hub's log has the reason.
    """

    STATUS = "STATUS"
    REDIRECT = "REDIRECT"
    GONE = "GONE"
    TIMEOUT = "TIMEOUT"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    CONNECTION_FAILED = "CONNECTION_FAILED"
    TLS_FAILED = "TLS_FAILED"
    ADDRESS_REFUSED = "ADDRESS_REFUSED"
    REPLY_BROKEN = "REPLY_BROKEN"
    FORWARD_FAILED = "FORWARD_FAILED"
    NOT_SENT = "NOT_SENT"
    NOT_VISIBLE = "NOT_VISIBLE"
    ACCESS_LOST = "ACCESS_LOST"
    EVENT_EXPIRED = "EVENT_EXPIRED"
    SHAPE_UNFIT = "SHAPE_UNFIT"
    RECORD_UNREADABLE = "RECORD_UNREADABLE"
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    FAILED_FOR_DAYS = "FAILED_FOR_DAYS"


class Envelope(enum.StrEnum):
    """The form of a body: ``{type, timestamp, data}``, or CloudEvents 1.0 in either mode."""

    STANDARD = "STANDARD"
    CLOUDEVENTS_STRUCTURED = "CLOUDEVENTS_STRUCTURED"
    CLOUDEVENTS_BINARY = "CLOUDEVENTS_BINARY"


class Body(enum.StrEnum):
    """The language of a body."""

    JSON = "JSON"
    XML = "XML"


class Ordering(enum.StrEnum):
    """NONE: as fast as possible. KEY: one delivery of a record at a time; other records
    continue."""

    NONE = "NONE"
    KEY = "KEY"


class Scheme(enum.StrEnum):
    """How deliveries are signed: HMAC-SHA256 (``v1``) or Ed25519 (``v1a``)."""

    HMAC = "HMAC"
    ED25519 = "ED25519"


@dataclass(frozen=True, slots=True)
class Selection:
    """The events of a dataset that an endpoint wants; empty ``operations`` mean all of them.

    ``shape`` is the reference to a shape, as written, or "". ``chosen`` is the version that it
    stands for now, and is not stored.
    """

    dataset: str
    operations: tuple[str, ...] = ()
    filter: str = ""
    fields: str = ""
    shape: str = ""
    chosen: ChosenShape | None = None

    def document(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "dataset": self.dataset,
            "operations": list(self.operations),
            "filter": self.filter,
            "fields": self.fields,
            "shape": self.shape,
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Selection:
        """A selection from its stored form."""
        return cls(
            found["dataset"],
            tuple(found["operations"]),
            found["filter"],
            found["fields"],
            found.get("shape", ""),  # earlier versions stored none
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How an endpoint wants its messages. ``rate`` is messages a second, 0 for no limit."""

    envelope: Envelope = Envelope.STANDARD
    body: Body = Body.JSON
    thin: bool = False
    ordering: Ordering = Ordering.NONE
    batch_size: int = 1
    concurrency: int = 16
    rate: int = 0
    schedule: tuple[int, ...] = DEFAULT_SCHEDULE
    notices: bool = False

    def document(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "envelope": self.envelope.value,
            "body": self.body.value,
            "thin": self.thin,
            "ordering": self.ordering.value,
            "batch_size": self.batch_size,
            "concurrency": self.concurrency,
            "rate": self.rate,
            "schedule": list(self.schedule),
            "notices": self.notices,
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Options:
        """Options from their stored form."""
        return cls(
            Envelope(found["envelope"]),
            Body(found["body"]),
            found["thin"],
            Ordering(found["ordering"]),
            found["batch_size"],
            found["concurrency"],
            found["rate"],
            tuple(found["schedule"]),
            found["notices"],
        )


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint. Its secrets are stored separately.

    ``scopes`` are those of the token that created it, and ``claims`` those of this token: they
    limit permanently what the endpoint is sent.
    """

    webhook_id: str
    consumer_id: str
    kind: WebhookKind
    selections: tuple[Selection, ...]
    options: Options = Options()
    title: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    scopes: frozenset[str] | None = None
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    state: State = State.ACTIVE
    reason: str = ""
    failing_time: datetime | None = None
    warned: int = 0
    start_number: int = 0
    replay_number: int | None = None
    replay_end: int | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    expire_time: datetime | None = None


@dataclass(slots=True)
class Occurrence(Event):
    """An event as the owners of endpoints see it through one View, which ``view_id`` names.

    It is the same from the log to the body. ``mark`` is the log's mark at its number; it is empty
    until the event is stored.
    """

    view_id: str = ""
    mark: bytes = b""


@dataclass(slots=True)
class Delivery:
    """A claimed message to an endpoint.

    ``attempt`` counts from 1; ``tries`` counts those of the current schedule, which a resend
    restarts. ``claim_term`` is the term of the keeper that claimed it, None if it was pulled.
    """

    delivery_id: str
    webhook_id: str
    cause: Cause
    event_type: str
    event_ids: list[int]
    previous: list[int]
    notice: Mapping[str, Any] | None
    order_key: str | None
    attempt: int
    tries: int
    event_time: datetime
    events: list[Occurrence] = field(default_factory=list)
    claim_term: int | None = None


def read_clock() -> datetime:
    """The current time of the system's clock."""
    return datetime.now(UTC)


def next_time(
    schedule: Sequence[int],
    tries: int,
    at: datetime,
    retry_after: timedelta | None = None,
    chance: Chance = random.random,
) -> datetime | None:
    """When to try again after try number ``tries`` (from 1 on) failed at a time; None: never.

    ``retry_after`` is the receiver's request: it can delay a retry, but not bring it forward.
    """
    if tries > len(schedule):
        return None
    stray = 1 + JITTER * (2 * chance() - 1)
    wait = timedelta(seconds=schedule[tries - 1] * stray)
    if retry_after is not None:
        wait = max(wait, min(retry_after, MAX_RETRY_AFTER))
    return at + wait
