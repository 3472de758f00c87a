"""What an endpoint's owner may see now, and the checks of an endpoint before it is stored.

The current policy decides at every step.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import structlog

from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard, UrlRefused
from penstockd.errors import PermissionDenied, ValueInvalid, Violation
from penstockd.formats.writing import check_xml_names
from penstockd.keyring import Seal
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action, Permission, Principal
from penstockd.policy.scopes import scopes_permit
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.query import QueryError
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.model import parse_reference
from penstockd.store.database import Connection
from penstockd.store.shapes import hold_shapes
from penstockd.webhooks.endpoints import (
    NOTHING_LOADED,
    Endpoint,
    endpoints_revision,
    load_endpoints,
    resolve_shapes,
)
from penstockd.webhooks.errors import WebhookUrlRefused
from penstockd.webhooks.model import (
    MAX_BATCH,
    OPERATIONS,
    Body,
    Envelope,
    Selection,
    Webhook,
    WebhookKind,
)
from penstockd.webhooks.replies import OWN_HEADERS

_KEPT = 4096

CONCURRENCY = range(1, 129)
RATE = range(0, 100_001)
RETRY_SECONDS = range(1, 259_201)
MAX_RETRIES = 20
MAX_SELECTIONS = 50
MAX_HEADERS = 20
_PORTS = {"https": 443, "http": 80}
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Sight:
    """What the owner of an endpoint sees of a selection: nothing without a lens. If the shape does
    not fit, ``lens`` is None, ``unfit`` the reason, and ``stand_in`` a lens without the shape."""

    lens: Lens | None
    stand_in: Lens | None = None
    unfit: str = ""


class Owners:
    """Makes the lenses of endpoints, and caches them until the policy changes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: OrderedDict[tuple[str, Selection, Body], _Sight] = OrderedDict()
        self._policy: PolicySnapshot | None = None

    def sights(self, policy: PolicySnapshot, webhook: Webhook) -> dict[str, Lens]:
        """The lenses of an endpoint by dataset, without datasets that its owner cannot read or
        whose shape does not fit."""
        seen = self._see(policy, webhook)
        return {name: sight.lens for name, sight in seen.items() if sight.lens is not None}

    def queued_sights(self, policy: PolicySnapshot, webhook: Webhook) -> dict[str, Lens]:
        """As ``sights``, but with lenses without the shape for shapes that do not fit: their events
        wait, and are read again before they are sent."""
        seen = self._see(policy, webhook)
        found = {name: sight.lens or sight.stand_in for name, sight in seen.items()}
        return {name: lens for name, lens in found.items() if lens is not None}

    def find_unfit(self, policy: PolicySnapshot, webhook: Webhook) -> str:
        """Why a shape of an endpoint does not fit what its owner sees, or ""."""
        if not any(s.shape for s in webhook.selections):
            return ""
        return next((s.unfit for s in self._see(policy, webhook).values() if s.unfit), "")

    def _see(self, policy: PolicySnapshot, webhook: Webhook) -> dict[str, _Sight]:
        principal = owner_of(policy, webhook)
        if principal is None:
            return {}
        if policy is not self._policy:
            self._kept.clear()
            self._policy = policy
        found = {}
        for selection in webhook.selections:
            name = (webhook.webhook_id, selection, webhook.options.body)
            if name not in self._kept:
                self._kept[name] = self._sight(policy, principal, selection, webhook)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            found[selection.dataset] = self._kept[name]
        return found

    def _sight(
        self, policy: PolicySnapshot, principal: Principal, selection: Selection, webhook: Webhook
    ) -> _Sight:
        try:
            return _Sight(
                lens_of(policy, self._catalog, principal, selection, webhook.options.body)
            )
        except PermissionDenied:
            return _Sight(None)
        except QueryError as exc:
            # The filter or the list of fields names a field that is now hidden.
            _log.warning("webhook_selection_unfit", webhook=webhook.webhook_id, error=str(exc))
            return _Sight(None)
        except ValueInvalid as exc:
            plain = replace(selection, shape="", chosen=None)
            with suppress(QueryError):  # the filter names a hidden field, too
                return _Sight(None, lens_of(policy, self._catalog, principal, plain), exc.message)
            return _Sight(None, None, exc.message)


class Roster(Owners):
    """All endpoints with what their owners see, shared by everything in the organ.

    ``revision`` is that of the loaded endpoints (see ``endpoints_revision``).
    """

    def __init__(self, catalog: Catalog, seal: Seal) -> None:
        super().__init__(catalog)
        self._seal = seal
        self.endpoints: Mapping[str, Endpoint] = {}
        self.revision = NOTHING_LOADED

    async def refresh(self, connection: Connection) -> None:
        """Read the endpoints again if any changed, as the connection's transaction sees them."""
        revision = await endpoints_revision(connection)
        if revision != self.revision:
            self.endpoints = await load_endpoints(connection, self._seal)
            self.revision = revision


def brought_claims(policy: PolicySnapshot, principal: Principal) -> dict[str, tuple[str, ...]]:
    """The claims of a caller's token that are not its consumer's own."""
    own = policy.consumers[principal.consumer_id].claims
    return {name: values for name, values in principal.claims.items() if own.get(name) != values}


def owner_of(policy: PolicySnapshot, webhook: Webhook) -> Principal | None:
    """The owner under a policy; None if it may no longer own webhooks."""
    consumer = policy.consumers.get(webhook.consumer_id)
    if consumer is None or not consumer.active:
        return None
    claims = {**consumer.claims, **webhook.claims}
    principal = Principal(consumer.consumer_id, "", consumer.roles, claims)
    if not policy.permits(principal, Permission.WEBHOOKS_WRITE):
        return None
    return replace(principal, scopes=webhook.scopes)


def unread_by(policy: PolicySnapshot, catalog: Catalog, caller: Principal, webhook: Webhook) -> str:
    """The first dataset of a webhook that the caller cannot read as the webhook does, or "".

    A caller that changes a webhook can redirect it to somebody else. So the caller's token decides,
    not the owner's current roles, which may grow. Another consumer (an administrator) could give
    itself any role, but no scope.
    """
    for selection in webhook.selections:
        name = selection.dataset
        if not scopes_permit(webhook.scopes, name, Action.READ):
            continue
        if not scopes_permit(caller.scopes, name, Action.READ):
            return name
        if caller.consumer_id == webhook.consumer_id:
            consumer = policy.consumers[webhook.consumer_id]
            same = caller.claims == {**consumer.claims, **webhook.claims}
            if not same and not _sees_as_much(policy, catalog, caller, webhook, selection):
                return name
    return ""


def _sees_as_much(
    policy: PolicySnapshot,
    catalog: Catalog,
    caller: Principal,
    webhook: Webhook,
    selection: Selection,
) -> bool:
    """Whether a caller with other claims sees all that the webhook sends."""
    owner = owner_of(policy, webhook)
    try:
        seen = lens_of(policy, catalog, caller, selection, webhook.options.body)
        told = (
            None
            if owner is None
            else lens_of(policy, catalog, owner, selection, webhook.options.body)
        )
    except (PermissionDenied, QueryError, ValueInvalid):
        return False
    return told is not None and (seen.view.predicate is None or seen.view_id == told.view_id)


def lens_of(
    policy: PolicySnapshot,
    catalog: Catalog,
    principal: Principal,
    selection: Selection,
    body: Body = Body.JSON,
) -> Lens:
    """What a principal sees of a selection.

    Raises PermissionDenied and QueryError, and ValueInvalid for a shape that does not fit.
    """
    view = policy.view(principal, selection.dataset, Action.READ)
    if not selection.shape:
        return Lens(view, catalog, fields=selection.fields, filter=selection.filter)
    if selection.chosen is None:
        raise ValueInvalid.of("shape", f"'{selection.shape}' does not exist")
    lens = ShapedLens(view, catalog, selection.chosen, selection.filter)
    if body is Body.XML:
        check_xml_names(lens.shaped.fields)
    return lens


def find_problems(policy: PolicySnapshot, catalog: Catalog, webhook: Webhook) -> Mapping[str, str]:
    """The reasons why selections bring no events, by dataset."""
    principal = owner_of(policy, webhook)
    found = {}
    for selection in webhook.selections:
        if principal is None:
            found[selection.dataset] = f"you need the permission {Permission.WEBHOOKS_WRITE.value}"
            continue
        try:
            lens_of(policy, catalog, principal, selection, webhook.options.body)
        except (PermissionDenied, QueryError, ValueInvalid) as exc:
            found[selection.dataset] = exc.message
    return found


def check_webhook(
    policy: PolicySnapshot, catalog: Catalog, guard: EgressGuard, webhook: Webhook
) -> None:
    """Raise if a webhook is invalid.

    Raises ValueInvalid and WebhookUrlRefused for its settings, PermissionDenied if its owner cannot
    own webhooks or cannot read a dataset, FieldUnknown and FilterInvalid as lists do.
    """
    violations = [Violation(f"webhook.{f}", text) for f, text in _find_problems(policy, webhook)]
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)
    if webhook.kind is WebhookKind.HTTP:
        _check_url(guard, webhook.url)
    owner = owner_of(policy, webhook)
    if owner is None:
        needed = Permission.WEBHOOKS_WRITE.value
        raise PermissionDenied(f"'{webhook.consumer_id}' needs the permission {needed}")
    for selection in webhook.selections:
        lens_of(policy, catalog, owner, selection, webhook.options.body)


async def hold_chosen_shapes(connection: Connection, webhook: Webhook) -> Webhook:
    """A webhook that is about to be stored, with the current versions of its shapes. Nobody can
    delete these before the transaction ends. Raises ValueInvalid and ShapeNotFound."""
    references = [s.shape for s in webhook.selections if s.shape]
    for reference in references:
        parse_reference(reference)
    await hold_shapes(connection, webhook.consumer_id, references)
    return (await resolve_shapes(connection, [webhook]))[0]


def parse_origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL: in lower case, and with the default port filled in."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # such a URL is refused elsewhere
        port = None
    return parts.scheme, parts.hostname or "", port or _PORTS.get(parts.scheme)


def _check_url(guard: EgressGuard, url: str) -> None:
    try:
        guard.check_url(url)
    except UrlRefused as exc:
        violation = Violation("webhook.url", str(exc))
        raise WebhookUrlRefused(f"url: {exc}", violations=[violation]) from exc


def _find_problems(policy: PolicySnapshot, webhook: Webhook) -> Iterator[tuple[str, str]]:
    if webhook.consumer_id not in policy.consumers:
        yield "consumer_id", f"there is no consumer '{webhook.consumer_id}'"
    if len(webhook.title) > 200 or "\0" in webhook.title:
        yield "title", "may have at most 200 characters"
    if webhook.kind is WebhookKind.LISTEN and webhook.url:
        yield "url", "is only for webhooks of kind HTTP"
    yield from _selection_problems(webhook)
    yield from _option_problems(webhook)
    yield from _header_problems(webhook)


def _selection_problems(webhook: Webhook) -> Iterator[tuple[str, str]]:
    if not 0 < len(webhook.selections) <= MAX_SELECTIONS:
        yield "selections", f"must be 1 to {MAX_SELECTIONS}"
        return
    seen: set[str] = set()
    for i, selection in enumerate(webhook.selections):
        if selection.dataset in seen:
            yield f"selections[{i}].dataset", "is selected twice"
        seen.add(selection.dataset)
        if selection.shape and selection.fields:
            yield (
                f"selections[{i}].fields",
                "cannot be combined with a shape, which has its own columns",
            )
        if (chosen := selection.chosen) is not None and chosen.dataset != selection.dataset:
            yield f"selections[{i}].shape", "belongs to another dataset"
        for operation in selection.operations:
            if operation not in OPERATIONS:
                text = f"'{operation[:40]}' is not one of {', '.join(OPERATIONS)}"
                yield f"selections[{i}].operations", text


def _option_problems(webhook: Webhook) -> Iterator[tuple[str, str]]:
    options = webhook.options
    if not 1 <= options.batch_size <= MAX_BATCH:
        yield "options.batch_size", f"must be 1 to {MAX_BATCH}"
    if options.envelope is Envelope.CLOUDEVENTS_BINARY and options.batch_size > 1:
        yield "options.batch_size", "must be 1: CloudEvents in binary mode are sent one by one"
    if options.concurrency not in CONCURRENCY:
        yield "options.concurrency", f"must be 1 to {CONCURRENCY.stop - 1}"
    if options.rate not in RATE:
        yield "options.rate", f"must be 0 to {RATE.stop - 1}"
    bad = [s for s in options.schedule if s not in RETRY_SECONDS]
    if bad or not 0 < len(options.schedule) <= MAX_RETRIES:
        yield "options.retry_seconds", f"must be 1 to {MAX_RETRIES} of 1 to 259200 seconds"


def _header_problems(webhook: Webhook) -> Iterator[tuple[str, str]]:
    if len(webhook.headers) > MAX_HEADERS:
        yield "headers", f"may be {MAX_HEADERS}"
    for name, value in webhook.headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name) or lower in OWN_HEADERS or lower.startswith("ce-"):
            yield "headers", f"'{name[:100]}' cannot be set"
        elif not (value.isascii() and value.isprintable() and len(value) <= 1024):
            yield f"headers[{name}]", "must be at most 1024 printable characters"
