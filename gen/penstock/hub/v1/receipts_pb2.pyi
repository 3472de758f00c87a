import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetReceiptRequest(_message.Message):
    __slots__ = ("receipt_id",)
    RECEIPT_ID_FIELD_NUMBER: _ClassVar[int]
    receipt_id: str
    def __init__(self, receipt_id: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("receipt_id", "dataset", "consumer_id", "request_id", "state", "reason", "format", "cursor", "row_count", "byte_count", "sha256", "policy_revision", "start_time", "finish_time", "resume_count", "loss", "record_count", "lossy_columns")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Receipt.State]
        RUNNING: _ClassVar[Receipt.State]
        COMPLETE: _ClassVar[Receipt.State]
        FAILED: _ClassVar[Receipt.State]
        CANCELLED: _ClassVar[Receipt.State]
    STATE_UNSPECIFIED: Receipt.State
    RUNNING: Receipt.State
    COMPLETE: Receipt.State
    FAILED: Receipt.State
    CANCELLED: Receipt.State
    class LossyColumn(_message.Message):
        __slots__ = ("name", "cell_count")
        NAME_FIELD_NUMBER: _ClassVar[int]
        CELL_COUNT_FIELD_NUMBER: _ClassVar[int]
        name: str
        cell_count: int
        def __init__(self, name: _Optional[str] = ..., cell_count: _Optional[int] = ...) -> None: ...
    RECEIPT_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    RESUME_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOSSY_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    receipt_id: str
    dataset: str
    consumer_id: str
    request_id: str
    state: Receipt.State
    reason: str
    format: str
    cursor: str
    row_count: int
    byte_count: int
    sha256: str
    policy_revision: int
    start_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    resume_count: int
    loss: str
    record_count: int
    lossy_columns: _containers.RepeatedCompositeFieldContainer[Receipt.LossyColumn]
    def __init__(self, receipt_id: _Optional[str] = ..., dataset: _Optional[str] = ..., consumer_id: _Optional[str] = ..., request_id: _Optional[str] = ..., state: _Optional[_Union[Receipt.State, str]] = ..., reason: _Optional[str] = ..., format: _Optional[str] = ..., cursor: _Optional[str] = ..., row_count: _Optional[int] = ..., byte_count: _Optional[int] = ..., sha256: _Optional[str] = ..., policy_revision: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resume_count: _Optional[int] = ..., loss: _Optional[str] = ..., record_count: _Optional[int] = ..., lossy_columns: _Optional[_Iterable[_Union[Receipt.LossyColumn, _Mapping]]] = ...) -> None: ...
