"""Converts messages of access administration to and from the objects of the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from penstock.hub.v1 import access_pb2
from penstockd.access.changes import ChangeTerms
from penstockd.policy.admin import StoredConsumer
from penstockd.policy.checks import GrantDraft, RoleDraft
from penstockd.policy.difference import PolicyDifference
from penstockd.policy.history import Revision
from penstockd.policy.model import Consumer, Role
from penstockd.policy.plan_checks import LimitsDraft
from penstockd.rpc.hub.messages import make_timestamp
from penstockd.rpc.hub.plan_messages import limits_draft_of, limits_message


class ChangeRequest(Protocol):
    """Any request that changes the policy."""

    comment: str
    policy_revision: int
    validate_only: bool


def terms_of(request: ChangeRequest) -> ChangeTerms:
    """The terms of a request that changes the policy."""
    return ChangeTerms(request.comment, request.policy_revision, request.validate_only)


def claims_of(claims: Mapping[str, access_pb2.ClaimValues]) -> dict[str, tuple[str, ...]]:
    """Claims by name, each value once, in order."""
    return {name: tuple(dict.fromkeys(found.values)) for name, found in claims.items()}


def put_claims(
    claims: Mapping[str, access_pb2.ClaimValues], found: Mapping[str, tuple[str, ...]]
) -> None:
    """Write claims into a message's map."""
    for name, values in found.items():
        claims[name].values.extend(values)


def consumer_of(message: access_pb2.Consumer) -> tuple[Consumer, LimitsDraft]:
    """A consumer from a request, and its own limits, unchecked; it is active unless the request
    sets otherwise."""
    consumer = Consumer(
        message.consumer_id,
        message.active if message.HasField("active") else True,
        frozenset(message.roles),
        claims_of(message.claims),
        message.title,
        message.plan,
    )
    return consumer, limits_draft_of(message.limits)


def consumer_message(stored: StoredConsumer, revision: int) -> access_pb2.Consumer:
    """A consumer for a reply."""
    message = consumer_fields(stored.consumer)
    message.create_time.FromDatetime(stored.create_time)
    message.policy_revision = revision
    return message


def consumer_fields(consumer: Consumer) -> access_pb2.Consumer:
    """The policy's fields of a consumer."""
    message = access_pb2.Consumer(
        consumer_id=consumer.consumer_id,
        title=consumer.title,
        active=consumer.active,
        roles=sorted(consumer.roles),
        plan=consumer.plan,
        limits=limits_message(consumer.limits),
    )
    put_claims(message.claims, consumer.claims)
    return message


def draft_of(message: access_pb2.Role) -> RoleDraft:
    """A role from a request, unchecked."""
    return RoleDraft(
        message.role_id,
        message.description,
        [
            GrantDraft(
                g.dataset,
                list(g.actions),
                dict(g.class_masks),
                dict(g.field_masks),
                g.row_filter,
                g.hash_domain,
            )
            for g in message.grants
        ],
        list(message.permissions),
    )


def role_message(role: Role, revision: int = 0) -> access_pb2.Role:
    """A role for a reply."""
    return access_pb2.Role(
        role_id=role.role_id,
        description=role.description,
        grants=[
            access_pb2.Grant(
                dataset=g.dataset,
                actions=sorted(g.actions),
                class_masks={c.name: m.value for c, m in g.class_masks.items()},
                field_masks={path: m.value for path, m in g.field_masks.items()},
                row_filter=g.row_filter,
                hash_domain=g.hash_domain,
            )
            for g in role.grants
        ],
        permissions=sorted(role.permissions),
        policy_revision=revision,
    )


def difference_message(difference: PolicyDifference) -> access_pb2.PolicyDifference:
    """A difference for a reply."""
    return access_pb2.PolicyDifference(
        subject=difference.subject,
        part=difference.part,
        before=difference.before,
        after=difference.after,
        text=difference.text,
    )


def revision_message(revision: Revision) -> access_pb2.PolicyRevision:
    """A revision for a reply, without its document."""
    return access_pb2.PolicyRevision(
        revision=revision.revision,
        create_time=make_timestamp(revision.create_time),
        consumer_id=revision.consumer_id,
        database_user=revision.database_user,
        comment=revision.comment,
        request_id=revision.request_id,
    )


def mask_of(mask: FieldMask, message: Message, fields: tuple[str, ...]) -> list[str]:
    """The fields that an update changes: those of its mask, or those that are set; ``*`` means
    all."""
    paths = list(dict.fromkeys(mask.paths))
    if not paths:
        return [fd.name for fd, _ in message.ListFields() if fd.name in fields]
    return list(fields) if paths == ["*"] else paths
