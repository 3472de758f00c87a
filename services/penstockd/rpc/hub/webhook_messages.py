"""Converts webhooks and deliveries to and from messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.hub.v1 import webhooks_pb2 as pb
from penstockd.access.masks import put_entries, split_path
from penstockd.query import FieldUnknown
from penstockd.rpc.hub.messages import put_time
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import Stored
from penstockd.webhooks.model import (
    DEFAULT_SCHEDULE,
    Body,
    Envelope,
    Options,
    Ordering,
    Scheme,
    Selection,
    Webhook,
    WebhookKind,
)
from penstockd.webhooks.search import Figures, Listed, Tried
from penstockd.webhooks.signing import Secret

_Options = pb.WebhookOptions
#: The fields that an update may change.
_CHANGEABLE = frozenset({"title", "url", "selections", "headers", "options"})
_SCHEMES = {
    _Options.Signature.SIGNATURE_UNSPECIFIED: None,
    _Options.Signature.HMAC_SHA256: Scheme.HMAC,
    _Options.Signature.ED25519: Scheme.ED25519,
}
_SIGNATURES = {scheme: number for number, scheme in _SCHEMES.items()}


def webhook_of(message: pb.Webhook) -> Webhook:
    """A webhook from a request, with defaults for what is unset."""
    return Webhook(
        webhook_id=message.webhook_id,
        consumer_id=message.consumer_id,
        kind=WebhookKind.LISTEN if message.kind == pb.Webhook.Kind.LISTEN else WebhookKind.HTTP,
        selections=tuple(
            Selection(s.dataset, tuple(dict.fromkeys(s.operations)), s.filter, s.fields, s.shape)
            for s in message.selections
        ),
        options=_options_of(message.options),
        title=message.title,
        url=message.url,
        headers=dict(message.headers),
    )


def scheme_of(number: int) -> Scheme | None:
    """The scheme for signing messages; None if it is unset."""
    return _SCHEMES.get(number)  # type: ignore[call-overload,no-any-return,unused-ignore]


def _options_of(message: pb.WebhookOptions) -> Options:
    default = Options()
    return Options(
        envelope=Envelope(_value_name(_Options.Envelope, message.envelope, "STANDARD")),
        body=Body(_value_name(_Options.Body, message.body, "JSON")),
        thin=message.thin,
        ordering=Ordering(_value_name(_Options.Ordering, message.ordering, "NONE")),
        batch_size=message.batch_size or default.batch_size,
        concurrency=message.concurrency or default.concurrency,
        rate=message.rate,
        schedule=tuple(message.retry_seconds) or DEFAULT_SCHEDULE,
        notices=message.notices,
    )


def _value_name(kind: Any, number: int, default: str) -> str:
    """The name of a value; the server has refused numbers without one."""
    return str(kind.Name(number)) if number else default


def change_of(request: pb.UpdateWebhookRequest) -> Callable[[Webhook], Webhook]:
    """The change that an update makes to a webhook: the fields of its mask, or else those that are
    set."""
    given, paths = request.webhook, set_paths(request)
    for path in paths:
        _check_path(path)

    def change(webhook: Webhook) -> Webhook:
        message = _settable_message(webhook)
        for path in paths:
            if "." not in path:
                message.ClearField(path)
        plain = [p for p in paths if p.partition(".")[0] != "headers"]
        FieldMask(paths=plain).MergeMessage(given, message, replace_repeated_field=True)
        put_entries("headers", given, message, paths)
        wanted = webhook_of(message)
        return replace(
            webhook,
            title=wanted.title,
            url=wanted.url,
            selections=wanted.selections,
            headers=wanted.headers,
            options=wanted.options,
        )

    return change


def _check_path(path: str) -> None:
    """Raise FieldUnknown for a path that no update of a webhook may name."""
    top, *parts = split_path(path)
    members = {"options": _Options.DESCRIPTOR.fields_by_name, "headers": parts}.get(top, ())
    if top not in _CHANGEABLE or len(parts) > 1 or any(p not in members for p in parts):
        raise FieldUnknown(path)


def set_paths(request: pb.UpdateWebhookRequest) -> list[str]:
    """The paths that an update sets: those of its mask, or else those that are set."""
    if request.update_mask.paths:
        return list(request.update_mask.paths)
    given = request.webhook
    found = [f.name for f, _ in given.ListFields() if f.name in _CHANGEABLE - {"options"}]
    if given.HasField("options"):
        found += [f"options.{f.name}" for f, _ in given.options.ListFields()]
    return found


def _settable_message(webhook: Webhook) -> pb.Webhook:
    """The fields of a webhook that the owner sets, with the values of headers: only for use in the
    hub."""
    message = pb.Webhook(
        webhook_id=webhook.webhook_id,
        consumer_id=webhook.consumer_id,
        title=webhook.title,
        kind=webhook.kind.value,
        url=webhook.url,
        selections=[
            pb.Selection(
                dataset=s.dataset,
                operations=s.operations,
                filter=s.filter,
                fields=s.fields,
                shape=s.shape,
            )
            for s in webhook.selections
        ],
        options=_options_message(webhook.options),
    )
    message.headers.update(webhook.headers)
    return message


def _options_message(options: Options) -> pb.WebhookOptions:
    return pb.WebhookOptions(
        envelope=options.envelope.value,
        body=options.body.value,
        thin=options.thin,
        ordering=options.ordering.value,
        batch_size=options.batch_size,
        concurrency=options.concurrency,
        rate=options.rate,
        retry_seconds=options.schedule,
        notices=options.notices,
    )


def webhook_message(stored: Stored, places: Places) -> pb.Webhook:
    """A webhook for a reply: without anything secret."""
    webhook, secrets = stored.webhook, stored.secrets
    message = _settable_message(webhook)
    for name in webhook.headers:
        message.headers[name] = ""
    message.MergeFrom(pb.Webhook(state=webhook.state.value))
    message.reason = webhook.reason
    message.scopes.extend(sorted(webhook.scopes or ()))
    message.problems.update(stored.problems)
    for name in ("failing_time", "create_time", "update_time", "expire_time"):
        put_time(message, name, getattr(webhook, name))
    if stored.replay is not None:
        message.replay.cursor, message.replay.end_cursor = map(places.seal, stored.replay)
    message.secrets.extend(map(_secret_message, secrets))
    if secrets:
        message.options.signature = _SIGNATURES[secrets[0].scheme]
    return message


def _secret_message(secret: Secret) -> pb.WebhookSecret:
    message = pb.WebhookSecret(
        secret_id=secret.secret_id,
        signature=_SIGNATURES[secret.scheme],
        public_key=secret.text if secret.scheme is Scheme.ED25519 else "",
    )
    put_time(message, "create_time", secret.create_time)
    put_time(message, "expire_time", secret.expire_time)
    return message


def delivery_message(
    listed: Listed, attempts: Sequence[Tried] = (), body: bytes = b""
) -> pb.Delivery:
    """A delivery for a reply."""
    values = dict(listed.values)
    state = values.pop("state")
    times = {n: values.pop(n) for n in ("event_time", "create_time", "next_time", "finish_time")}
    known = {n: v for n, v in values.items() if v is not None}
    message = pb.Delivery(**known, state=state, body=body)
    for name, moment in times.items():
        put_time(message, name, moment)
    message.attempts.extend(map(_attempt_message, attempts))
    return message


def _attempt_message(tried: Tried) -> pb.Attempt:
    message = pb.Attempt(
        number=tried.number,
        latency=_round_milliseconds(tried.latency_ms),
        delivered=tried.delivered,
        reason=tried.reason,
        address=tried.address,
        request_head=tried.request_head,
        body_bytes=tried.body_bytes,
        status=tried.status or 0,
        response_head=tried.reply_head,
        response_body=tried.reply_body,
    )
    put_time(message, "start_time", tried.start_time)
    put_time(message, "next_time", tried.next_time)
    return message


def notice_message(found: Mapping[str, Any]) -> pb.Notice:
    """A notice for a reply."""
    message = pb.Notice(type=found["type"], webhook_id=found["webhook_id"])
    message.data.update(orjson.loads(found["data"]))
    put_time(message, "create_time", found["create_time"])
    return message


def metrics_message(figures: Figures, at: datetime) -> pb.WebhookMetrics:
    """Figures at a time, for a reply."""
    message = pb.WebhookMetrics(
        attempt_count=figures.attempts,
        delivered_count=figures.delivered,
        retry_count=figures.retries,
        waiting_count=figures.waiting,
        dead_count=sum(figures.dead.values()),
        dead_reasons=dict(figures.dead),
    )
    if figures.attempts:
        message.success_rate = figures.delivered / figures.attempts
        half, most, nearly_all = map(_round_milliseconds, figures.latencies)
        message.latency_p50.CopyFrom(half)
        message.latency_p95.CopyFrom(most)
        message.latency_p99.CopyFrom(nearly_all)
    if figures.oldest is not None:
        message.oldest_age.FromTimedelta(max(timedelta(), at - figures.oldest))
    return message


def _round_milliseconds(value: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(milliseconds=value))
    return duration
