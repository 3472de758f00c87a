from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.rpc import code_pb2 as _code_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
ERROR_FIELD_NUMBER: _ClassVar[int]
error: _descriptor.FieldDescriptor

class ErrorOptions(_message.Message):
    __slots__ = ("code", "retry_seconds", "quota", "http_status")
    CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    code: _code_pb2.Code
    retry_seconds: int
    quota: ErrorQuota
    http_status: int
    def __init__(self, code: _Optional[_Union[_code_pb2.Code, str]] = ..., retry_seconds: _Optional[int] = ..., quota: _Optional[_Union[ErrorQuota, _Mapping]] = ..., http_status: _Optional[int] = ...) -> None: ...

class ErrorQuota(_message.Message):
    __slots__ = ("subject", "description")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    subject: str
    description: str
    def __init__(self, subject: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...
