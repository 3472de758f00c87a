"""The nouns of webhooks: endpoints, what they are told, when, and what became of that."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstockd.feed.event import Event, FeedOperation

#: Seconds after the first attempt's failure, and after each that follows: with the first, ten
#: attempts over 75 h 35 min.
DEFAULT_SCHEDULE = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
#: Events in one message at most.
MAX_BATCH = 100
#: What endpoints may ask for: whatever becomes of a record, by its word.
OPERATIONS = tuple(o.word for o in FeedOperation if o is not FeedOperation.SNAPSHOT)

#: How far a retry strays from its time, either way: many that failed together come back apart.
JITTER = 0.2
#: The longest that a receiver can ask for by Retry-After.
MAX_RETRY_AFTER = timedelta(days=1)
Clock = Callable[[], datetime]
#: A number from 0 on and below 1.
Chance = Callable[[], float]


class WebhookKind(enum.StrEnum):
    """HTTP is posted to; LISTEN is pulled by a developer's command and ends when that stops."""

    HTTP = "HTTP"
    LISTEN = "LISTEN"


class State(enum.StrEnum):
    """PAUSED: what comes waits. DISABLED: what comes is dead at once, to be recovered later."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"


class DeliveryState(enum.StrEnum):
    """Where a delivery stands; PARKED waits for an earlier one of the same record."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    PARKED = "PARKED"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class Cause(enum.StrEnum):
    """Why there is a delivery."""

    EVENT = "EVENT"
    REPLAY = "REPLAY"
    TEST = "TEST"
    NOTICE = "NOTICE"


class Reason(enum.StrEnum):
    """Why an attempt failed, or why a delivery is dead or an endpoint disabled.

    NOT_SENT: the hub itself failed to send it, and its log says why. NOT_VISIBLE: the owner's View
    shows nothing of it any more. ACCESS_LOST: the owner may not read the dataset, or have webhooks,
    any more. ADDRESS_REFUSED: there is no address that the hub may go to, also since the name does
    not exist. EVENT_EXPIRED: the event is gone, or the View has changed since and the log that
    would say what it shows is gone.
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
    ENDPOINT_DISABLED = "ENDPOINT_DISABLED"
    FAILED_FOR_DAYS = "FAILED_FOR_DAYS"


class Envelope(enum.StrEnum):
    """The form of a body: ``{type, timestamp, data}``, or CloudEvents 1.0 in either mode."""

    STANDARD = "STANDARD"
    CLOUDEVENTS_STRUCTURED = "CLOUDEVENTS_STRUCTURED"
    CLOUDEVENTS_BINARY = "CLOUDEVENTS_BINARY"


class Body(enum.StrEnum):
    """What a body is written in."""

    JSON = "JSON"
    XML = "XML"


class Ordering(enum.StrEnum):
    """NONE: as fast as can be. KEY: of one record, one after the other; others pass it by."""

    NONE = "NONE"
    KEY = "KEY"


class Scheme(enum.StrEnum):
    """How deliveries are signed: HMAC-SHA256 (``v1``) or Ed25519 (``v1a``)."""

    HMAC = "HMAC"
    ED25519 = "ED25519"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a dataset an endpoint wants; no ``operations`` are all of them."""

    dataset: str
    operations: tuple[str, ...] = ()
    filter: str = ""
    fields: str = ""

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "dataset": self.dataset,
            "operations": list(self.operations),
            "filter": self.filter,
            "fields": self.fields,
        }

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Selection:
        """What was stored."""
        return cls(found["dataset"], tuple(found["operations"]), found["filter"], found["fields"])


@dataclass(frozen=True, slots=True)
class Options:
    """How an endpoint wants to be told. ``rate`` is messages a second, 0 without a limit."""

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
        """As it is stored."""
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
        """What was stored."""
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
    """An endpoint. Its secrets are kept apart (``secrets``).

    ``scopes`` are those of the token that it was made with, and ``claims`` those that this token
    brought: they decide what it is told for ever.
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

    It is the same from the log to the body. ``mark`` is the log's at its number; events that have
    not been stored yet have none.
    """

    view_id: str = ""
    mark: bytes = b""


@dataclass(slots=True)
class Delivery:
    """A message to an endpoint, as it was claimed. ``attempt`` counts from 1; ``tries`` those of
    the schedule that is running, which a resend begins anew. ``claim_term`` is that of the keeper
    that claimed it, None if it was pulled."""

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


def now() -> datetime:
    """The time by the system's clock."""
    return datetime.now(UTC)


def next_time(
    schedule: Sequence[int],
    tries: int,
    at: datetime,
    retry_after: timedelta | None = None,
    chance: Chance = random.random,
) -> datetime | None:
    """When to try again after the try of a number (from 1 on) failed at a time; None: never.

    ``retry_after`` is what the receiver asked for: it can delay a retry, not hasten it.
    """
    if tries > len(schedule):
        return None
    stray = 1 + JITTER * (2 * chance() - 1)
    wait = timedelta(seconds=schedule[tries - 1] * stray)
    if retry_after is not None:
        wait = max(wait, min(retry_after, MAX_RETRY_AFTER))
    return at + wait
