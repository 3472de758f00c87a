"""What a webhook must be like before it is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard, UrlRefused
from penstockd.errors import PermissionDenied, ValueInvalid, Violation, WebhookUrlRefused
from penstockd.policy.model import Permission
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.webhooks.model import MAX_BATCH, Envelope, Kind, Webhook
from penstockd.webhooks.owners import lens_of, owner_of
from penstockd.webhooks.sender import OWN_HEADERS

OPERATIONS = ("created", "updated", "deleted", "entered_view", "left_view")
CONCURRENCY = range(1, 129)
RATE = range(0, 100_001)
RETRY_SECONDS = range(1, 259_201)
MAX_RETRIES = 20
MAX_SELECTIONS = 50
MAX_HEADERS = 20

_PORTS = {"https": 443, "http": 80}

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def check_webhook(
    policy: PolicySnapshot, catalog: Catalog, guard: EgressGuard, webhook: Webhook
) -> None:
    """Raise if a webhook cannot be as it is.

    ValueInvalid and WebhookUrlRefused for what is wrong with it, PermissionDenied if its owner may
    have no webhooks or not read a dataset, FieldUnknown and FilterInvalid as lists do.
    """
    violations = [Violation(f"webhook.{f}", text) for f, text in _problems(policy, webhook)]
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)
    if webhook.kind is Kind.HTTP:
        _check_url(guard, webhook.url)
    owner = owner_of(policy, webhook)
    if owner is None:
        needed = Permission.WEBHOOKS_WRITE.value
        raise PermissionDenied(f"'{webhook.consumer_id}' needs the permission {needed}")
    for selection in webhook.selections:
        lens_of(policy, catalog, owner, selection)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL; what they are in full, and in lower case."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:  # it is refused
        port = None
    return parts.scheme, parts.hostname or "", port or _PORTS.get(parts.scheme)


def _check_url(guard: EgressGuard, url: str) -> None:
    try:
        guard.check_url(url)
    except UrlRefused as exc:
        violation = Violation("webhook.url", str(exc))
        raise WebhookUrlRefused(f"url: {exc}", violations=[violation]) from exc


def _problems(policy: PolicySnapshot, webhook: Webhook) -> Iterator[tuple[str, str]]:
    if webhook.consumer_id not in policy.consumers:
        yield "consumer_id", f"there is no consumer '{webhook.consumer_id}'"
    if len(webhook.title) > 200 or "\0" in webhook.title:
        yield "title", "may have 200 characters"
    if webhook.kind is Kind.LISTEN and webhook.url:
        yield "url", "is for webhooks of kind HTTP"
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
        for operation in selection.operations:
            if operation not in OPERATIONS:
                text = f"'{operation[:40]}' is none of {', '.join(OPERATIONS)}"
                yield f"selections[{i}].operations", text


def _option_problems(webhook: Webhook) -> Iterator[tuple[str, str]]:
    options = webhook.options
    if not 1 <= options.batch_size <= MAX_BATCH:
        yield "options.batch_size", f"must be 1 to {MAX_BATCH}"
    if options.envelope is Envelope.CLOUDEVENTS_BINARY and options.batch_size > 1:
        yield "options.batch_size", "must be 1: CloudEvents in binary mode come one by one"
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
