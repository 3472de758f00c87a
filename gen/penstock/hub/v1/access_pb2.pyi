import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.hub.v1 import limits_pb2 as _limits_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReviewAccessRequest(_message.Message):
    __slots__ = ("consumer", "days", "unused_days", "format")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    UNUSED_DAYS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    consumer: str
    days: int
    unused_days: int
    format: str
    def __init__(self, consumer: _Optional[str] = ..., days: _Optional[int] = ..., unused_days: _Optional[int] = ..., format: _Optional[str] = ...) -> None: ...

class Consumer(_message.Message):
    __slots__ = ("consumer_id", "title", "active", "roles", "claims", "create_time", "policy_revision", "plan", "limits")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ClaimValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ClaimValues, _Mapping]] = ...) -> None: ...
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    title: str
    active: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    claims: _containers.MessageMap[str, ClaimValues]
    create_time: _timestamp_pb2.Timestamp
    policy_revision: int
    plan: str
    limits: _limits_pb2.PlanLimits
    def __init__(self, consumer_id: _Optional[str] = ..., title: _Optional[str] = ..., active: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., claims: _Optional[_Mapping[str, ClaimValues]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policy_revision: _Optional[int] = ..., plan: _Optional[str] = ..., limits: _Optional[_Union[_limits_pb2.PlanLimits, _Mapping]] = ...) -> None: ...

class ClaimValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("credential_id", "consumer_id", "kind", "prefix", "create_time", "expire_time", "last_use_time", "revoked")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Credential.Kind]
        CLIENT_SECRET: _ClassVar[Credential.Kind]
        API_KEY: _ClassVar[Credential.Kind]
    KIND_UNSPECIFIED: Credential.Kind
    CLIENT_SECRET: Credential.Kind
    API_KEY: Credential.Kind
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    credential_id: str
    consumer_id: str
    kind: Credential.Kind
    prefix: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    last_use_time: _timestamp_pb2.Timestamp
    revoked: bool
    def __init__(self, credential_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., kind: _Optional[_Union[Credential.Kind, str]] = ..., prefix: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoked: _Optional[bool] = ...) -> None: ...

class IssuedCredential(_message.Message):
    __slots__ = ("credential", "secret")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    credential: Credential
    secret: str
    def __init__(self, credential: _Optional[_Union[Credential, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class Role(_message.Message):
    __slots__ = ("role_id", "description", "grants", "permissions", "policy_revision")
    ROLE_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    role_id: str
    description: str
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    permissions: _containers.RepeatedScalarFieldContainer[str]
    policy_revision: int
    def __init__(self, role_id: _Optional[str] = ..., description: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., permissions: _Optional[_Iterable[str]] = ..., policy_revision: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("dataset", "actions", "class_masks", "field_masks", "row_filter", "hash_domain")
    class ClassMasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class FieldMasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASS_MASKS_FIELD_NUMBER: _ClassVar[int]
    FIELD_MASKS_FIELD_NUMBER: _ClassVar[int]
    ROW_FILTER_FIELD_NUMBER: _ClassVar[int]
    HASH_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    class_masks: _containers.ScalarMap[str, str]
    field_masks: _containers.ScalarMap[str, str]
    row_filter: str
    hash_domain: str
    def __init__(self, dataset: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ..., class_masks: _Optional[_Mapping[str, str]] = ..., field_masks: _Optional[_Mapping[str, str]] = ..., row_filter: _Optional[str] = ..., hash_domain: _Optional[str] = ...) -> None: ...

class ListConsumersRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListConsumersResponse(_message.Message):
    __slots__ = ("consumers", "next_page_token")
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    consumers: _containers.RepeatedCompositeFieldContainer[Consumer]
    next_page_token: str
    def __init__(self, consumers: _Optional[_Iterable[_Union[Consumer, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetConsumerRequest(_message.Message):
    __slots__ = ("consumer_id",)
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    def __init__(self, consumer_id: _Optional[str] = ...) -> None: ...

class CreateConsumerRequest(_message.Message):
    __slots__ = ("consumer", "comment", "policy_revision", "validate_only")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer: Consumer
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer: _Optional[_Union[Consumer, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpdateConsumerRequest(_message.Message):
    __slots__ = ("consumer", "update_mask", "comment", "policy_revision", "validate_only")
    CONSUMER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer: Consumer
    update_mask: _field_mask_pb2.FieldMask
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer: _Optional[_Union[Consumer, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeleteConsumerRequest(_message.Message):
    __slots__ = ("consumer_id", "comment", "policy_revision", "validate_only")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer_id: _Optional[str] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ListCredentialsRequest(_message.Message):
    __slots__ = ("consumer_id", "page_size", "page_token")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    page_size: int
    page_token: str
    def __init__(self, consumer_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCredentialsResponse(_message.Message):
    __slots__ = ("credentials", "next_page_token")
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[Credential]
    next_page_token: str
    def __init__(self, credentials: _Optional[_Iterable[_Union[Credential, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class IssueCredentialRequest(_message.Message):
    __slots__ = ("consumer_id", "kind", "expire_time", "comment", "policy_revision", "validate_only")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    kind: Credential.Kind
    expire_time: _timestamp_pb2.Timestamp
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer_id: _Optional[str] = ..., kind: _Optional[_Union[Credential.Kind, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RotateCredentialRequest(_message.Message):
    __slots__ = ("consumer_id", "credential_id", "overlap", "expire_time", "comment", "policy_revision", "validate_only")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    credential_id: str
    overlap: _duration_pb2.Duration
    expire_time: _timestamp_pb2.Timestamp
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer_id: _Optional[str] = ..., credential_id: _Optional[str] = ..., overlap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RevokeCredentialRequest(_message.Message):
    __slots__ = ("consumer_id", "credential_id", "comment", "policy_revision", "validate_only")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    credential_id: str
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, consumer_id: _Optional[str] = ..., credential_id: _Optional[str] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ListRolesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRolesResponse(_message.Message):
    __slots__ = ("roles", "next_page_token")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    next_page_token: str
    def __init__(self, roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetRoleRequest(_message.Message):
    __slots__ = ("role_id",)
    ROLE_ID_FIELD_NUMBER: _ClassVar[int]
    role_id: str
    def __init__(self, role_id: _Optional[str] = ...) -> None: ...

class CreateRoleRequest(_message.Message):
    __slots__ = ("role", "comment", "policy_revision", "validate_only")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    role: Role
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, role: _Optional[_Union[Role, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpdateRoleRequest(_message.Message):
    __slots__ = ("role", "update_mask", "comment", "policy_revision", "validate_only")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    role: Role
    update_mask: _field_mask_pb2.FieldMask
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, role: _Optional[_Union[Role, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeleteRoleRequest(_message.Message):
    __slots__ = ("role_id", "comment", "policy_revision", "validate_only")
    ROLE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    role_id: str
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, role_id: _Optional[str] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PolicyRevision(_message.Message):
    __slots__ = ("revision", "create_time", "consumer_id", "database_user", "comment", "request_id", "roles", "consumers")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    DATABASE_USER_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    create_time: _timestamp_pb2.Timestamp
    consumer_id: str
    database_user: str
    comment: str
    request_id: str
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    consumers: _containers.RepeatedCompositeFieldContainer[Consumer]
    def __init__(self, revision: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., consumer_id: _Optional[str] = ..., database_user: _Optional[str] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ..., consumers: _Optional[_Iterable[_Union[Consumer, _Mapping]]] = ...) -> None: ...

class ListPolicyRevisionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPolicyRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "next_page_token")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[PolicyRevision]
    next_page_token: str
    def __init__(self, revisions: _Optional[_Iterable[_Union[PolicyRevision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetPolicyRevisionRequest(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class ComparePolicyRevisionsRequest(_message.Message):
    __slots__ = ("from_revision", "to_revision")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    to_revision: int
    def __init__(self, from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ...) -> None: ...

class ComparePolicyRevisionsResponse(_message.Message):
    __slots__ = ("differences",)
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    differences: _containers.RepeatedCompositeFieldContainer[PolicyDifference]
    def __init__(self, differences: _Optional[_Iterable[_Union[PolicyDifference, _Mapping]]] = ...) -> None: ...

class PolicyDifference(_message.Message):
    __slots__ = ("subject", "part", "before", "after", "text")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    subject: str
    part: str
    before: str
    after: str
    text: str
    def __init__(self, subject: _Optional[str] = ..., part: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RollbackPolicyRequest(_message.Message):
    __slots__ = ("revision", "comment", "policy_revision", "validate_only")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    revision: int
    comment: str
    policy_revision: int
    validate_only: bool
    def __init__(self, revision: _Optional[int] = ..., comment: _Optional[str] = ..., policy_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class ExplainAccessRequest(_message.Message):
    __slots__ = ("dataset", "consumer_id", "roles", "claims", "key")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ClaimValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ClaimValues, _Mapping]] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    consumer_id: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    claims: _containers.MessageMap[str, ClaimValues]
    key: str
    def __init__(self, dataset: _Optional[str] = ..., consumer_id: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., claims: _Optional[_Mapping[str, ClaimValues]] = ..., key: _Optional[str] = ...) -> None: ...

class ExplainAccessResponse(_message.Message):
    __slots__ = ("dataset", "consumer_id", "active", "roles", "claims", "permissions", "policy_revision", "actions", "fields", "rows", "record")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ClaimValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ClaimValues, _Mapping]] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    consumer_id: str
    active: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    claims: _containers.MessageMap[str, ClaimValues]
    permissions: _containers.RepeatedScalarFieldContainer[str]
    policy_revision: int
    actions: _containers.RepeatedCompositeFieldContainer[ActionVerdict]
    fields: _containers.RepeatedCompositeFieldContainer[FieldVerdict]
    rows: RowVerdict
    record: RecordVerdict
    def __init__(self, dataset: _Optional[str] = ..., consumer_id: _Optional[str] = ..., active: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., claims: _Optional[_Mapping[str, ClaimValues]] = ..., permissions: _Optional[_Iterable[str]] = ..., policy_revision: _Optional[int] = ..., actions: _Optional[_Iterable[_Union[ActionVerdict, _Mapping]]] = ..., fields: _Optional[_Iterable[_Union[FieldVerdict, _Mapping]]] = ..., rows: _Optional[_Union[RowVerdict, _Mapping]] = ..., record: _Optional[_Union[RecordVerdict, _Mapping]] = ...) -> None: ...

class ActionVerdict(_message.Message):
    __slots__ = ("action", "allowed", "roles")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    action: str
    allowed: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, action: _Optional[str] = ..., allowed: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

class FieldVerdict(_message.Message):
    __slots__ = ("path", "mask", "decided_by", "reason", "grants", "writable")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    DECIDED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    path: str
    mask: str
    decided_by: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    grants: _containers.RepeatedCompositeFieldContainer[GrantVerdict]
    writable: bool
    def __init__(self, path: _Optional[str] = ..., mask: _Optional[str] = ..., decided_by: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[GrantVerdict, _Mapping]]] = ..., writable: _Optional[bool] = ...) -> None: ...

class GrantVerdict(_message.Message):
    __slots__ = ("role", "mask", "rule", "names")
    class Rule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RULE_UNSPECIFIED: _ClassVar[GrantVerdict.Rule]
        KEY: _ClassVar[GrantVerdict.Rule]
        FIELD: _ClassVar[GrantVerdict.Rule]
        MESSAGE: _ClassVar[GrantVerdict.Rule]
        CLASS: _ClassVar[GrantVerdict.Rule]
        DEFAULT: _ClassVar[GrantVerdict.Rule]
    RULE_UNSPECIFIED: GrantVerdict.Rule
    KEY: GrantVerdict.Rule
    FIELD: GrantVerdict.Rule
    MESSAGE: GrantVerdict.Rule
    CLASS: GrantVerdict.Rule
    DEFAULT: GrantVerdict.Rule
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    role: str
    mask: str
    rule: GrantVerdict.Rule
    names: str
    def __init__(self, role: _Optional[str] = ..., mask: _Optional[str] = ..., rule: _Optional[_Union[GrantVerdict.Rule, str]] = ..., names: _Optional[str] = ...) -> None: ...

class RowVerdict(_message.Message):
    __slots__ = ("all", "rules", "reason")
    ALL_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    all: bool
    rules: _containers.RepeatedCompositeFieldContainer[RowRule]
    reason: str
    def __init__(self, all: _Optional[bool] = ..., rules: _Optional[_Iterable[_Union[RowRule, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class RowRule(_message.Message):
    __slots__ = ("role", "row_filter", "claims")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ClaimValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ClaimValues, _Mapping]] = ...) -> None: ...
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROW_FILTER_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    role: str
    row_filter: str
    claims: _containers.MessageMap[str, ClaimValues]
    def __init__(self, role: _Optional[str] = ..., row_filter: _Optional[str] = ..., claims: _Optional[_Mapping[str, ClaimValues]] = ...) -> None: ...

class RecordVerdict(_message.Message):
    __slots__ = ("key", "exists", "visible", "roles", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: str
    exists: bool
    visible: bool
    roles: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    def __init__(self, key: _Optional[str] = ..., exists: _Optional[bool] = ..., visible: _Optional[bool] = ..., roles: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ...) -> None: ...

class PreviewRecordsRequest(_message.Message):
    __slots__ = ("dataset", "consumer_id", "roles", "claims", "filter", "order_by", "fields", "limit")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ClaimValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ClaimValues, _Mapping]] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    consumer_id: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    claims: _containers.MessageMap[str, ClaimValues]
    filter: str
    order_by: str
    fields: str
    limit: int
    def __init__(self, dataset: _Optional[str] = ..., consumer_id: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., claims: _Optional[_Mapping[str, ClaimValues]] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., fields: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class PreviewRecordsResponse(_message.Message):
    __slots__ = ("records", "fields", "more", "policy_revision")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    fields: _containers.RepeatedScalarFieldContainer[str]
    more: bool
    policy_revision: int
    def __init__(self, records: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ..., fields: _Optional[_Iterable[str]] = ..., more: _Optional[bool] = ..., policy_revision: _Optional[int] = ...) -> None: ...

class RehearseAccessRequest(_message.Message):
    __slots__ = ("role", "revision", "days")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    role: Role
    revision: int
    days: int
    def __init__(self, role: _Optional[_Union[Role, _Mapping]] = ..., revision: _Optional[int] = ..., days: _Optional[int] = ...) -> None: ...

class RehearseAccessResponse(_message.Message):
    __slots__ = ("policy_revision", "start_time", "consumers", "differences")
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    policy_revision: int
    start_time: _timestamp_pb2.Timestamp
    consumers: _containers.RepeatedCompositeFieldContainer[ConsumerEffect]
    differences: _containers.RepeatedCompositeFieldContainer[PolicyDifference]
    def __init__(self, policy_revision: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., consumers: _Optional[_Iterable[_Union[ConsumerEffect, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[PolicyDifference, _Mapping]]] = ...) -> None: ...

class ConsumerEffect(_message.Message):
    __slots__ = ("consumer_id", "datasets", "uncalled_datasets")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    UNCALLED_DATASETS_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetEffect]
    uncalled_datasets: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, consumer_id: _Optional[str] = ..., datasets: _Optional[_Iterable[_Union[DatasetEffect, _Mapping]]] = ..., uncalled_datasets: _Optional[_Iterable[str]] = ...) -> None: ...

class DatasetEffect(_message.Message):
    __slots__ = ("dataset", "lost_actions", "gained_actions", "fields", "row_count", "lost_row_count", "gained_row_count", "call_count", "denied_call_count", "failing_call_count", "last_failing_call_time", "last_call_time")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    LOST_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    GAINED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOST_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    GAINED_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    DENIED_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILING_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_FAILING_CALL_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_CALL_TIME_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    lost_actions: _containers.RepeatedScalarFieldContainer[str]
    gained_actions: _containers.RepeatedScalarFieldContainer[str]
    fields: _containers.RepeatedCompositeFieldContainer[FieldEffect]
    row_count: int
    lost_row_count: int
    gained_row_count: int
    call_count: int
    denied_call_count: int
    failing_call_count: int
    last_failing_call_time: _timestamp_pb2.Timestamp
    last_call_time: _timestamp_pb2.Timestamp
    def __init__(self, dataset: _Optional[str] = ..., lost_actions: _Optional[_Iterable[str]] = ..., gained_actions: _Optional[_Iterable[str]] = ..., fields: _Optional[_Iterable[_Union[FieldEffect, _Mapping]]] = ..., row_count: _Optional[int] = ..., lost_row_count: _Optional[int] = ..., gained_row_count: _Optional[int] = ..., call_count: _Optional[int] = ..., denied_call_count: _Optional[int] = ..., failing_call_count: _Optional[int] = ..., last_failing_call_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_call_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FieldEffect(_message.Message):
    __slots__ = ("path", "before", "after", "call_count", "last_call_time", "writable_before", "writable_after")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_CALL_TIME_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_AFTER_FIELD_NUMBER: _ClassVar[int]
    path: str
    before: str
    after: str
    call_count: int
    last_call_time: _timestamp_pb2.Timestamp
    writable_before: bool
    writable_after: bool
    def __init__(self, path: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., call_count: _Optional[int] = ..., last_call_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., writable_before: _Optional[bool] = ..., writable_after: _Optional[bool] = ...) -> None: ...
