from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class IgnoredName(_message.Message):
    __slots__ = ("name", "value_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value_count: int
    def __init__(self, name: _Optional[str] = ..., value_count: _Optional[int] = ...) -> None: ...

class PreviewColumn(_message.Message):
    __slots__ = ("name", "field", "type", "values", "refused_count", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    field: str
    type: str
    values: _containers.RepeatedScalarFieldContainer[str]
    refused_count: int
    note: str
    def __init__(self, name: _Optional[str] = ..., field: _Optional[str] = ..., type: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ..., refused_count: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...
