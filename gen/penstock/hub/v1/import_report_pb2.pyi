from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class IgnoredName(_message.Message):
    __slots__ = ("name", "value_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value_count: int
    def __init__(self, name: _Optional[str] = ..., value_count: _Optional[int] = ...) -> None: ...
