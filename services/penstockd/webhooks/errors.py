"""Errors that only calls about webhooks raise; see ``penstockd.errors``."""

from __future__ import annotations

from penstockd.errors import Invalid, Refused


class WebhookNotFound(Refused):
    """No such webhook, or none that the caller may see: the error is the same."""

    reason = "WEBHOOK_NOT_FOUND"


class DeliveryNotFound(Refused):
    """No such delivery of the webhook."""

    reason = "DELIVERY_NOT_FOUND"


class WebhookUrlRefused(Invalid):
    """Webhooks must not lead to this URL."""

    reason = "WEBHOOK_URL_REFUSED"


class WebhookDisabled(Refused):
    """The webhook sends nothing until it is resumed."""

    reason = "WEBHOOK_DISABLED"


class ReplayUnderWay(Refused):
    """A replay of the webhook is already running; only one may run at a time."""

    reason = "REPLAY_UNDER_WAY"


class TooManyWebhooks(Refused):
    """A consumer has as many webhooks as it may have."""

    reason = "TOO_MANY_WEBHOOKS"


class WebhookKindUnfit(Refused):
    """The call does not apply to webhooks of this kind."""

    reason = "WEBHOOK_KIND_UNFIT"
