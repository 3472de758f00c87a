"""Whose usage a caller may see."""

from __future__ import annotations

from dataclasses import replace

from penstockd.calls import Call
from penstockd.metering.report import UsageQuestion
from penstockd.policy.model import Permission


def narrow_question(call: Call, question: UsageQuestion) -> UsageQuestion:
    """The question, of the caller's own usage unless it may see that of all.

    Raises PermissionDenied for other questions. Scopes narrow a token in this as in all.
    """
    if not call.in_scope(Permission.USAGE_READ):
        call.require(Permission.USAGE_READ)  # it raises: the scopes do not name this one
    if call.permits(Permission.USAGE_READ) or call.permits(Permission.AUDIT_READ):
        return question
    own = call.principal.consumer_id
    if question.only.get("consumer", own) != own:
        call.require(Permission.USAGE_READ)
    return replace(question, only={**question.only, "consumer": own})


def require_usage_of_all(call: Call) -> None:
    """Raise PermissionDenied unless the caller may see the usage of all consumers."""
    call.require(Permission.USAGE_READ, Permission.AUDIT_READ)
