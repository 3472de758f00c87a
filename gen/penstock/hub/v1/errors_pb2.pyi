from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from penstock.options.v1 import method_pb2 as _method_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListErrorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListErrorsResponse(_message.Message):
    __slots__ = ("errors",)
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedCompositeFieldContainer[Error]
    def __init__(self, errors: _Optional[_Iterable[_Union[Error, _Mapping]]] = ...) -> None: ...

class GetErrorRequest(_message.Message):
    __slots__ = ("error_reason",)
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    error_reason: str
    def __init__(self, error_reason: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("reason", "status", "http_status", "description", "example", "retry_seconds")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    status: str
    http_status: int
    description: str
    example: str
    retry_seconds: int
    def __init__(self, reason: _Optional[str] = ..., status: _Optional[str] = ..., http_status: _Optional[int] = ..., description: _Optional[str] = ..., example: _Optional[str] = ..., retry_seconds: _Optional[int] = ...) -> None: ...
