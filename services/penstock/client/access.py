"""Administration of access: consumers, credentials, roles, the policy's history, and why.

Messages are those of ``penstock.hub.v1.access``; arguments may also be dicts in their JSON form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format

from penstock.client.link import Link
from penstock.client.pages import walk_pages
from penstock.hub.v1 import access_pb2 as api
from penstock.hub.v1 import access_pb2_grpc as stubs

T = TypeVar("T")

Claims = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Terms:
    """How to make a change: why, at which policy revision only (0: any), or as a dry run."""

    comment: str = ""
    policy_revision: int = 0
    validate_only: bool = False

    def fields(self) -> dict[str, Any]:
        """The terms as fields of a request."""
        return {
            "comment": self.comment,
            "policy_revision": self.policy_revision,
            "validate_only": self.validate_only,
        }


#: At once, at any revision, without a reason.
NOW = Terms()


class AccessClient:
    """An administrator's methods at one hub. Every method raises PenstockError.

    Reading takes the permission access.read; changes, previews and rehearsals take access.write.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._consumers = stubs.ConsumersStub(link.channel)
        self._roles = stubs.RolesStub(link.channel)
        self._policy = stubs.PolicyStub(link.channel)
        self._access = stubs.AccessStub(link.channel)

    # --- consumers ------------------------------------------------------------------------

    def consumers(self) -> Iterator[api.Consumer]:
        """All consumers, in order of id, page by page."""
        request = api.ListConsumersRequest()
        return self._pages(self._consumers.ListConsumers, request, "consumers")

    def consumer(self, consumer_id: str) -> api.Consumer:
        """One consumer."""
        request = api.GetConsumerRequest(consumer_id=consumer_id)
        return self._read(self._consumers.GetConsumer, request)

    def create_consumer(self, consumer: Any, terms: Terms = NOW) -> api.Consumer:
        """A new consumer."""
        sent = make_message(consumer, api.Consumer)
        request = api.CreateConsumerRequest(consumer=sent, **terms.fields())
        return self._write(self._consumers.CreateConsumer, request)

    def update_consumer(
        self, consumer: Any, mask: Sequence[str] = (), terms: Terms = NOW
    ) -> api.Consumer:
        """Set what ``mask`` names (title, active, roles, claims, plan, limits), or what is set."""
        sent = make_message(consumer, api.Consumer)
        request = api.UpdateConsumerRequest(consumer=sent, **terms.fields())
        request.update_mask.paths.extend(mask)
        return self._write(self._consumers.UpdateConsumer, request)

    def delete_consumer(self, consumer_id: str, terms: Terms = NOW) -> None:
        """Delete a consumer and its credentials."""
        request = api.DeleteConsumerRequest(consumer_id=consumer_id, **terms.fields())
        self._write(self._consumers.DeleteConsumer, request)

    # --- credentials ----------------------------------------------------------------------

    def credentials(self, consumer_id: str) -> Iterator[api.Credential]:
        """A consumer's credentials, newest first."""
        request = api.ListCredentialsRequest(consumer_id=consumer_id)
        return self._pages(self._consumers.ListCredentials, request, "credentials")

    def issue_credential(
        self,
        consumer_id: str,
        kind: str,
        expire_time: datetime | None = None,
        terms: Terms = NOW,
    ) -> api.IssuedCredential:
        """A new credential of a kind, CLIENT_SECRET or API_KEY; shows its secret only this once."""
        request = api.IssueCredentialRequest(consumer_id=consumer_id, kind=kind, **terms.fields())
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        return self._write(self._consumers.IssueCredential, request)

    def rotate_credential(
        self,
        consumer_id: str,
        credential_id: str,
        overlap: timedelta = timedelta(),
        expire_time: datetime | None = None,
        terms: Terms = NOW,
    ) -> api.IssuedCredential:
        """A new credential in place of another, which stays valid for the overlap."""
        request = api.RotateCredentialRequest(
            consumer_id=consumer_id, credential_id=credential_id, **terms.fields()
        )
        request.overlap.FromTimedelta(overlap)
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        return self._write(self._consumers.RotateCredential, request)

    def revoke_credential(
        self, consumer_id: str, credential_id: str, terms: Terms = NOW
    ) -> api.Credential:
        """Ends a credential for ever."""
        request = api.RevokeCredentialRequest(
            consumer_id=consumer_id, credential_id=credential_id, **terms.fields()
        )
        return self._write(self._consumers.RevokeCredential, request)

    # --- roles ----------------------------------------------------------------------------

    def roles(self) -> Iterator[api.Role]:
        """All roles, in order of id, page by page."""
        return self._pages(self._roles.ListRoles, api.ListRolesRequest(), "roles")

    def role(self, role_id: str) -> api.Role:
        """One role."""
        return self._read(self._roles.GetRole, api.GetRoleRequest(role_id=role_id))

    def create_role(self, role: Any, terms: Terms = NOW) -> api.Role:
        """A new role."""
        request = api.CreateRoleRequest(role=make_message(role, api.Role), **terms.fields())
        return self._write(self._roles.CreateRole, request)

    def update_role(self, role: Any, mask: Sequence[str] = (), terms: Terms = NOW) -> api.Role:
        """Set what ``mask`` names (description, grants, permissions), or all that is set."""
        request = api.UpdateRoleRequest(role=make_message(role, api.Role), **terms.fields())
        request.update_mask.paths.extend(mask)
        return self._write(self._roles.UpdateRole, request)

    def delete_role(self, role_id: str, terms: Terms = NOW) -> None:
        """Delete a role that no consumer has."""
        self._write(
            self._roles.DeleteRole, api.DeleteRoleRequest(role_id=role_id, **terms.fields())
        )

    # --- history --------------------------------------------------------------------------

    def revisions(self) -> Iterator[api.PolicyRevision]:
        """The policy's revisions, newest first, without their documents, page by page."""
        request = api.ListPolicyRevisionsRequest()
        return self._pages(self._policy.ListPolicyRevisions, request, "revisions")

    def revision(self, revision: int) -> api.PolicyRevision:
        """One revision with all roles and consumers of its time."""
        request = api.GetPolicyRevisionRequest(revision=revision)
        return self._read(self._policy.GetPolicyRevision, request)

    def compare(self, before: int, after: int = 0) -> list[api.PolicyDifference]:
        """What differs between two revisions; 0 is the one in force."""
        request = api.ComparePolicyRevisionsRequest(from_revision=before, to_revision=after)
        return list(self._read(self._policy.ComparePolicyRevisions, request).differences)

    def roll_back(self, revision: int, terms: Terms = NOW) -> api.PolicyRevision:
        """Restores the policy of an earlier revision, as a new one."""
        request = api.RollbackPolicyRequest(revision=revision, **terms.fields())
        return self._write(self._policy.RollbackPolicy, request)

    # --- why ------------------------------------------------------------------------------

    def explain(
        self,
        dataset: str,
        *,
        consumer_id: str = "",
        roles: Sequence[str] = (),
        claims: Claims | None = None,
        key: str = "",
    ) -> api.ExplainAccessResponse:
        """What a consumer, or any holder of some roles, may do with a dataset, and why."""
        request = api.ExplainAccessRequest(
            dataset=dataset, consumer_id=consumer_id, roles=roles, key=key
        )
        _put_claims(request, claims)
        return self._read(self._access.ExplainAccess, request)

    def preview(
        self,
        dataset: str,
        *,
        consumer_id: str = "",
        roles: Sequence[str] = (),
        claims: Claims | None = None,
        filter: str = "",
        order_by: str = "",
        fields: str = "",
        limit: int = 0,
    ) -> api.PreviewRecordsResponse:
        """The first records that a consumer, or any holder of some roles, would get."""
        request = api.PreviewRecordsRequest(
            dataset=dataset,
            consumer_id=consumer_id,
            roles=roles,
            filter=filter,
            order_by=order_by,
            fields=fields,
            limit=limit,
        )
        _put_claims(request, claims)
        return self._read(self._access.PreviewRecords, request)

    def rehearse(
        self, role: Any = None, *, revision: int = 0, days: int = 0
    ) -> api.RehearseAccessResponse:
        """What a changed role, or an earlier revision, would mean for recent callers."""
        request = api.RehearseAccessRequest(revision=revision, days=days)
        if role is not None:
            request.role.CopyFrom(make_message(role, api.Role))
        return self._read(self._access.RehearseAccess, request)

    def review(
        self, consumer_id: str = "", *, days: int = 0, unused_days: int = 0, format: str = ""
    ) -> Iterator[bytes]:
        """The file of a review in pieces: what consumers may see, what they received in the last
        ``days``, and grants that nobody used for ``unused_days`` (0: 90). It takes audit.read, too.

        ``format`` is JSON, CSV, XML or HTML.
        """
        request = api.ReviewAccessRequest(
            consumer=consumer_id, days=days, unused_days=unused_days, format=format
        )
        for body in self._link.stream(self._access.ReviewAccess, request, timeout=None):
            yield body.data

    def review_document(
        self, consumer_id: str = "", *, days: int = 0, unused_days: int = 0
    ) -> dict[str, Any]:
        """The same as a document, with the names of the model."""
        pieces = self.review(consumer_id, days=days, unused_days=unused_days, format="JSON")
        found: dict[str, Any] = _name_as_model(json.loads(b"".join(pieces)))
        return found

    def _read(self, method: grpc.UnaryUnaryMultiCallable[Any, T], request: Any) -> T:
        reply: T = self._link.unary(method, request, safe=True)
        return reply

    def _write(self, method: grpc.UnaryUnaryMultiCallable[Any, T], request: Any) -> T:
        reply: T = self._link.unary(method, request, safe=False)
        return reply

    def _pages(self, method: Any, request: Any, field: str) -> Iterator[Any]:
        return walk_pages(lambda asked: self._read(method, asked), request, field)


def _put_claims(request: Any, claims: Claims | None) -> None:
    for name, values in (claims or {}).items():
        request.claims[name].values.extend(values)


def make_message(given: Any, kind: Any) -> Any:
    """The message itself, or one made of a dict in JSON form. Raises ValueError."""
    if isinstance(given, kind):
        return given
    try:
        return json_format.ParseDict(given, kind())
    except json_format.ParseError as error:
        raise ValueError(f"not a {kind.DESCRIPTOR.name.lower()}: {error}") from None


def _name_as_model(value: Any) -> Any:
    """JSON data with the names of the model."""
    if isinstance(value, dict):
        return {re.sub("[A-Z]", _lower_letter, n): _name_as_model(v) for n, v in value.items()}
    return [_name_as_model(v) for v in value] if isinstance(value, list) else value


def _lower_letter(found: re.Match[str]) -> str:
    return f"_{found[0].lower()}"
