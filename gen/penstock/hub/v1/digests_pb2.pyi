from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RangeDigest(_message.Message):
    __slots__ = ("start_key", "end_key", "row_count", "sha256", "records")
    START_KEY_FIELD_NUMBER: _ClassVar[int]
    END_KEY_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    start_key: str
    end_key: str
    row_count: int
    sha256: str
    records: _containers.RepeatedCompositeFieldContainer[RecordDigest]
    def __init__(self, start_key: _Optional[str] = ..., end_key: _Optional[str] = ..., row_count: _Optional[int] = ..., sha256: _Optional[str] = ..., records: _Optional[_Iterable[_Union[RecordDigest, _Mapping]]] = ...) -> None: ...

class RecordDigest(_message.Message):
    __slots__ = ("key", "sha256")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    key: str
    sha256: str
    def __init__(self, key: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...
