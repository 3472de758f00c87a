"""Reviews of access: what each consumer may see by the policy of now, and what it received.

What was received is known from the uses that are folded from the audit (see
``metering.access_uses``), what was denied from the rollups of usage.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from penstockd.answers.reasons import REASONS
from penstockd.audit.shown import describe_classes
from penstockd.auth.credentials import StoredCredential, list_credentials
from penstockd.budget import let_others_run
from penstockd.errors import RecordNotFound, ValueInvalid
from penstockd.metering.access_uses import AccessUse, list_users, read_uses
from penstockd.metering.report import UsageQuestion, UsageRow, read_freshness, report_usage
from penstockd.metering.rollups import UsageLevel
from penstockd.policy.admin import StoredConsumer, read_consumers, read_consumers_named
from penstockd.policy.history import PolicyDocument, read_document_at
from penstockd.policy.model import Action, Mask, Permission, Principal
from penstockd.policy.rehearsal import list_actions
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.policy.view import View
from penstockd.store.database import Connection

DEFAULT_DAYS, MAX_DAYS = 90, 3660
#: Consumers that are read at a time.
BATCH = 50
#: The most credentials, and kinds of denied attempts, that are listed of one consumer.
MAX_LISTED = 1000
#: The codes of errors that deny access.
_DENIALS = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_NOBODY = PolicyDocument({}, {})


@dataclass(frozen=True, slots=True)
class ReviewQuestion:
    """Asks for a review of a consumer, or of all; 0 days mean DEFAULT_DAYS."""

    consumer: str = ""
    days: int = 0
    unused_days: int = 0

    def check(self) -> None:
        """Raise ValueInvalid for numbers out of range."""
        for name in ("days", "unused_days"):
            if not 0 <= getattr(self, name) <= MAX_DAYS:
                raise ValueInvalid.of(name, f"is not between 0 and {MAX_DAYS:,}")


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """What a review goes by: its times, the policy of now, and the one of ``unused_since``.

    ``fresh``: calls that were answered before it are in the review.
    """

    now: dt.datetime
    since: dt.datetime
    unused_since: dt.datetime
    fresh: dt.datetime
    policy: PolicySnapshot
    before: PolicyDocument

    @property
    def head(self) -> dict[str, Any]:
        """What the file says of the review as a whole."""
        return {
            "review_time": self.now,
            "start_time": self.since,
            "unused_since_time": self.unused_since,
            "fresh_time": self.fresh,
            "policy_revision": str(self.policy.revision),
        }


async def set_terms(
    connection: Connection, policy: PolicySnapshot, question: ReviewQuestion
) -> ReviewTerms:
    """The terms of a review that begins now."""
    fresh, now = await read_freshness(connection)
    today = UsageLevel.DAY.truncate(now.astimezone(dt.UTC))
    since = today - dt.timedelta(days=(question.days or DEFAULT_DAYS) - 1)
    unused_since = now - dt.timedelta(days=question.unused_days or DEFAULT_DAYS)
    before = await read_document_at(connection, unused_since)
    # Views of all consumers would drive those of callers from the cache of the policy.
    own = replace(policy, accesses=OrderedDict(), views=OrderedDict())
    return ReviewTerms(now, since, unused_since, fresh, own, before or _NOBODY)


class ReviewReader:
    """Reads the documents of consumers, in order of id, BATCH at a time."""

    def __init__(self, terms: ReviewTerms, only: str = "") -> None:
        """``only``: the one consumer that is reviewed."""
        self._terms, self._only = terms, only
        self._after: str | None = ""

    async def read(self, connection: Connection) -> list[dict[str, Any]]:
        """The next documents; none at the end. Raises RecordNotFound if the only consumer neither
        exists nor has used anything."""
        if self._after is None:
            return []
        stored, names = await self._read_names(connection)
        uses = await read_uses(connection, names)
        credentials = await list_credentials(connection, names)
        documents = []
        for name in names:
            denied = await _read_denied(connection, name, self._terms)
            known = _ReviewFacts(
                name, stored.get(name), uses[name], credentials.get(name, []), denied
            )
            documents.append(await describe_consumer(self._terms, known))
        return documents

    async def _read_names(
        self, connection: Connection
    ) -> tuple[Mapping[str, StoredConsumer], list[str]]:
        """The consumers of the next batch that exist, and the ids of all that are in it."""
        if self._only:
            self._after = None
            found = await read_consumers_named(connection, [self._only])
            users = (await read_uses(connection, [self._only]))[self._only]
            if not found and not users:
                raise RecordNotFound(f"consumer '{self._only}' does not exist")
            return {c.consumer.consumer_id: c for c in found}, [self._only]
        assert self._after is not None, "the end was not reached"
        found = await read_consumers(connection, self._after, BATCH)
        gone = await list_users(connection, self._after, self._terms.since, BATCH)
        stored = {c.consumer.consumer_id: c for c in found}
        names = sorted({*stored, *gone})[:BATCH]
        self._after = names[-1] if len(names) == BATCH else None
        # A user beyond the last consumer that was read may be one that exists.
        late = [name for name in names if name not in stored]
        stored |= {c.consumer.consumer_id: c for c in await read_consumers_named(connection, late)}
        return stored, names


async def _read_denied(connection: Connection, name: str, terms: ReviewTerms) -> list[UsageRow]:
    """How often a consumer was denied what, the most often first."""
    question = UsageQuestion(
        ("dataset", "method", "status"), terms.since, terms.now, only={"consumer": name},
        order_by="errors",
    )  # fmt: skip
    report = await report_usage(connection, question, MAX_LISTED * 10, 0)
    return [row for row in report.rows if is_denial(row.values["status"])]


def is_denial(status: str) -> bool:
    """Whether calls that ended so were denied access."""
    return status in REASONS and REASONS[status].status in _DENIALS


class _ReviewFacts(NamedTuple):
    """What the store knows of a consumer; ``stored`` is None if it was deleted."""

    name: str
    stored: StoredConsumer | None
    uses: Sequence[AccessUse]
    credentials: Sequence[StoredCredential]
    denied: Sequence[UsageRow]


async def describe_consumer(terms: ReviewTerms, known: _ReviewFacts) -> dict[str, Any]:
    """The document of one consumer."""
    stored, recent = known.stored, [use for use in known.uses if use.last >= terms.since]
    consumer = stored.consumer if stored is not None else None
    roles = consumer.roles if consumer is not None else frozenset[str]()
    permissions = {p for role in roles for p in terms.policy.permissions.get(role, ())}
    datasets = await _describe_datasets(terms, known, recent)
    return {
        "consumer": known.name,
        "title": consumer.title if consumer is not None else "",
        "state": "DELETED" if consumer is None else "ACTIVE" if consumer.active else "INACTIVE",
        "create_time": stored.create_time if stored is not None else None,
        "last_use_time": _find_latest(
            *(use.last for use in known.uses), *(c.last_use_time for c in known.credentials)
        ),
        "roles": sorted(roles),
        "permissions": [p.value for p in Permission if p in permissions],
        "surfaces": _list_surfaces(recent),
        "datasets": datasets,
        "credentials": _describe_credentials(terms.now, known),
        "unused_grants": list_unused(terms, known.name, roles, known.uses)
        if stored is not None and stored.create_time <= terms.unused_since
        else [],
        "denied": [
            {**row.values, "calls": str(row.counts.errors)} for row in known.denied[:MAX_LISTED]
        ],
        "denied_calls": str(sum(row.counts.errors for row in known.denied)),
    }


async def _describe_datasets(
    terms: ReviewTerms, known: _ReviewFacts, recent: Sequence[AccessUse]
) -> list[dict[str, Any]]:
    """The datasets that a consumer may do something with, or that it used."""
    views: dict[str, View] = {}
    if known.stored is not None:
        consumer = known.stored.consumer
        principal = Principal(known.name, "", consumer.roles, consumer.claims)
        for dataset in terms.policy.catalog:
            await let_others_run()
            if (view := terms.policy.visible(principal, dataset.name)) is not None:
                views[dataset.name] = view
    names = {*views, *(use.dataset for use in recent if use.dataset)}
    return [_describe_dataset(name, views.get(name), terms, known.uses) for name in sorted(names)]


def _describe_dataset(
    name: str, view: View | None, terms: ReviewTerms, uses: Sequence[AccessUse]
) -> dict[str, Any]:
    own = [use for use in uses if use.dataset == name]
    recent = [use for use in own if use.last >= terms.since]
    received = sorted({
        each for use in own if use.received is not None and use.received >= terms.since
        for each in use.classes.split(",") if each
    })  # fmt: skip
    may_see = list_classes(view)
    return {
        "dataset": name,
        "actions": [a.value for a in Action if view is not None and a in view.actions],
        "row_filters": _list_filters(view),
        "may_see": may_see,
        "received": received,
        "no_longer": [each for each in received if not covers_class(may_see, each)],
        "surfaces": _list_surfaces(recent),
        "last_use_time": _find_latest(*(use.last for use in own)),
    }


def covers_class(may_see: Sequence[str], received: str) -> bool:
    """Whether a class of fields that was received may be seen now, as clearly or more so."""
    name, mask = _split_class(received)
    return any(
        name == other and shown.strictness <= mask.strictness
        for other, shown in map(_split_class, may_see)
    )


def _split_class(text: str) -> tuple[str, Mask]:
    """A class of fields and its mask, of text such as "pii:partial"."""
    name, _, mask = text.partition(":")
    return name, Mask(mask or "clear")


def _list_filters(view: View | None) -> list[str]:
    """The row filters that bound what a View shows to a reader; none if it shows all records."""
    found = {g.row_filter for g in view.grants if Action.READ in g.actions} if view else set()
    return [] if "" in found else sorted(found)


def list_classes(view: View | None) -> list[str]:
    """The classes of fields that a View shows to a reader, as usage names them."""
    if view is None or Action.READ not in view.actions:
        return []
    fields = [f for top in view.dataset.fields for f in top.walk()]
    shown = [(f.field_class, view.mask(f).value) for f in fields if view.mask(f) is not Mask.HIDE]
    described = describe_classes(shown)
    return [n if mask == "clear" else f"{n}:{mask}" for n, mask in sorted(described.items())]


def _describe_credentials(now: dt.datetime, known: _ReviewFacts) -> list[dict[str, Any]]:
    """The credentials of a consumer, newest first, then issuers whose tokens it used."""
    used_at: dict[str, dt.datetime] = {}
    for use in known.uses:
        used_at[use.credential_id] = max(used_at.get(use.credential_id, use.last), use.last)
    stored: list[dict[str, Any]] = [
        {
            "credential": c.credential_id,
            "kind": c.kind.upper(),
            "state": "REVOKED" if c.revoked else "EXPIRED" if c.ended else "ACTIVE",
            "create_time": c.create_time,
            "age_days": (now - c.create_time).days,
            "last_use_time": _find_latest(c.last_use_time, used_at.get(c.credential_id)),
            "expire_time": c.expire_time,
        }
        for c in known.credentials[:MAX_LISTED]
    ]
    others = used_at.keys() - {c.credential_id for c in known.credentials} - {""}
    used: list[dict[str, Any]] = [
        {
            "credential": name,
            "kind": "ISSUER" if name.startswith("issuer:") else "GONE",
            "last_use_time": used_at[name],
        }
        for name in sorted(others)
    ]
    return [*stored, *used][:MAX_LISTED]


def list_unused(
    terms: ReviewTerms, name: str, roles: Iterable[str], uses: Sequence[AccessUse]
) -> list[dict[str, Any]]:
    """The actions of grants that a consumer has now, had at ``unused_since``, and did not use
    since.

    An action that several roles grant is used for all of them.
    """
    then = terms.before.consumers.get(name)
    held = then.roles if then is not None else frozenset[str]()
    used = _date_actions(uses)
    found = []
    for role in sorted(held & set(roles)):
        earlier = {
            (grant.dataset, action)
            for grant in (terms.before.roles[role].grants if role in terms.before.roles else ())
            for action in grant.actions
        }
        for grant in terms.policy.grants.get(role, ()):
            for action in [a for a in Action if a in grant.actions]:
                last = used.get((grant.dataset, action))
                if (grant.dataset, action) in earlier and not (last and last >= terms.unused_since):
                    found.append({"role": role, "dataset": grant.dataset, "action": action.value,
                                  "last_use_time": last})  # fmt: skip
    return found


def _date_actions(uses: Sequence[AccessUse]) -> dict[tuple[str, Action], dt.datetime]:
    """When each action on each dataset was last used."""
    found: dict[tuple[str, Action], dt.datetime] = {}
    for use in uses:
        for action in list_actions(use.method.rpartition("/")[2]):
            key = use.dataset, action
            found[key] = max(found.get(key, use.last), use.last)
    return found


def _list_surfaces(uses: Iterable[AccessUse]) -> list[str]:
    return sorted({use.surface for use in uses if use.surface})


def _find_latest(*times: dt.datetime | None) -> dt.datetime | None:
    return max((t for t in times if t is not None), default=None)
