import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListEntriesRequest(_message.Message):
    __slots__ = ("filter", "start_time", "end_time", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token", "archived_days")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_DAYS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    next_page_token: str
    archived_days: ArchivedDays
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., archived_days: _Optional[_Union[ArchivedDays, _Mapping]] = ...) -> None: ...

class ArchivedDays(_message.Message):
    __slots__ = ("first_day", "last_day", "places")
    FIRST_DAY_FIELD_NUMBER: _ClassVar[int]
    LAST_DAY_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    first_day: str
    last_day: str
    places: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, first_day: _Optional[str] = ..., last_day: _Optional[str] = ..., places: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("entry_id", "time", "phase", "request_id", "trace_id", "consumer_id", "credential_id", "policy_revision", "method", "surface", "dataset", "record_key", "query", "shown", "row_count", "byte_count", "receipt_id", "outcome", "peer", "rule")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    RECORD_KEY_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    entry_id: int
    time: _timestamp_pb2.Timestamp
    phase: str
    request_id: str
    trace_id: str
    consumer_id: str
    credential_id: str
    policy_revision: int
    method: str
    surface: str
    dataset: str
    record_key: str
    query: str
    shown: str
    row_count: int
    byte_count: int
    receipt_id: str
    outcome: str
    peer: str
    rule: Rule
    def __init__(self, entry_id: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., phase: _Optional[str] = ..., request_id: _Optional[str] = ..., trace_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., credential_id: _Optional[str] = ..., policy_revision: _Optional[int] = ..., method: _Optional[str] = ..., surface: _Optional[str] = ..., dataset: _Optional[str] = ..., record_key: _Optional[str] = ..., query: _Optional[str] = ..., shown: _Optional[str] = ..., row_count: _Optional[int] = ..., byte_count: _Optional[int] = ..., receipt_id: _Optional[str] = ..., outcome: _Optional[str] = ..., peer: _Optional[str] = ..., rule: _Optional[_Union[Rule, _Mapping]] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("dataset", "fields", "roles", "row_filters")
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ROW_FILTERS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    fields: _containers.ScalarMap[str, str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    row_filters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ..., roles: _Optional[_Iterable[str]] = ..., row_filters: _Optional[_Iterable[str]] = ...) -> None: ...

class ExportEntriesRequest(_message.Message):
    __slots__ = ("start_day", "end_day")
    START_DAY_FIELD_NUMBER: _ClassVar[int]
    END_DAY_FIELD_NUMBER: _ClassVar[int]
    start_day: str
    end_day: str
    def __init__(self, start_day: _Optional[str] = ..., end_day: _Optional[str] = ...) -> None: ...

class ListDisclosuresRequest(_message.Message):
    __slots__ = ("dataset", "record_key", "field", "start_time", "end_time", "recipient", "page_size", "page_token")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    RECORD_KEY_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    record_key: str
    field: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    recipient: str
    page_size: int
    page_token: str
    def __init__(self, dataset: _Optional[str] = ..., record_key: _Optional[str] = ..., field: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., recipient: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDisclosuresResponse(_message.Message):
    __slots__ = ("disclosures", "next_page_token", "archived_days")
    DISCLOSURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_DAYS_FIELD_NUMBER: _ClassVar[int]
    disclosures: _containers.RepeatedCompositeFieldContainer[Disclosure]
    next_page_token: str
    archived_days: ArchivedDays
    def __init__(self, disclosures: _Optional[_Iterable[_Union[Disclosure, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., archived_days: _Optional[_Union[ArchivedDays, _Mapping]] = ...) -> None: ...

class Disclosure(_message.Message):
    __slots__ = ("entry_id", "time", "consumer_id", "credential_id", "method", "surface", "format", "fields", "roles", "row_filters", "policy_revision", "certainty", "complete", "receipt_id", "request_id", "peer")
    class Certainty(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CERTAINTY_UNSPECIFIED: _ClassVar[Disclosure.Certainty]
        EXACT: _ClassVar[Disclosure.Certainty]
        PROBABLE: _ClassVar[Disclosure.Certainty]
        POSSIBLE: _ClassVar[Disclosure.Certainty]
    CERTAINTY_UNSPECIFIED: Disclosure.Certainty
    EXACT: Disclosure.Certainty
    PROBABLE: Disclosure.Certainty
    POSSIBLE: Disclosure.Certainty
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ROW_FILTERS_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    CERTAINTY_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    entry_id: int
    time: _timestamp_pb2.Timestamp
    consumer_id: str
    credential_id: str
    method: str
    surface: str
    format: str
    fields: _containers.ScalarMap[str, str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    row_filters: _containers.RepeatedScalarFieldContainer[str]
    policy_revision: int
    certainty: Disclosure.Certainty
    complete: bool
    receipt_id: str
    request_id: str
    peer: str
    def __init__(self, entry_id: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., consumer_id: _Optional[str] = ..., credential_id: _Optional[str] = ..., method: _Optional[str] = ..., surface: _Optional[str] = ..., format: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ..., roles: _Optional[_Iterable[str]] = ..., row_filters: _Optional[_Iterable[str]] = ..., policy_revision: _Optional[int] = ..., certainty: _Optional[_Union[Disclosure.Certainty, str]] = ..., complete: _Optional[bool] = ..., receipt_id: _Optional[str] = ..., request_id: _Optional[str] = ..., peer: _Optional[str] = ...) -> None: ...

class VerifyEntriesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyEntriesResponse(_message.Message):
    __slots__ = ("intact", "findings", "entry_count", "unsealed_count", "checkpoint_count", "filed_count", "archived_days")
    INTACT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNSEALED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_COUNT_FIELD_NUMBER: _ClassVar[int]
    FILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARCHIVED_DAYS_FIELD_NUMBER: _ClassVar[int]
    intact: bool
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    entry_count: int
    unsealed_count: int
    checkpoint_count: int
    filed_count: int
    archived_days: ArchivedDays
    def __init__(self, intact: _Optional[bool] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., entry_count: _Optional[int] = ..., unsealed_count: _Optional[int] = ..., checkpoint_count: _Optional[int] = ..., filed_count: _Optional[int] = ..., archived_days: _Optional[_Union[ArchivedDays, _Mapping]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("fault", "description", "day", "sequence", "entry_id", "checkpoint")
    FAULT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    fault: str
    description: str
    day: str
    sequence: int
    entry_id: int
    checkpoint: int
    def __init__(self, fault: _Optional[str] = ..., description: _Optional[str] = ..., day: _Optional[str] = ..., sequence: _Optional[int] = ..., entry_id: _Optional[int] = ..., checkpoint: _Optional[int] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("number", "time", "day", "sequence", "hash", "public_key", "fingerprint", "line")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: _timestamp_pb2.Timestamp
    day: str
    sequence: int
    hash: str
    public_key: str
    fingerprint: str
    line: str
    def __init__(self, number: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., day: _Optional[str] = ..., sequence: _Optional[int] = ..., hash: _Optional[str] = ..., public_key: _Optional[str] = ..., fingerprint: _Optional[str] = ..., line: _Optional[str] = ...) -> None: ...
