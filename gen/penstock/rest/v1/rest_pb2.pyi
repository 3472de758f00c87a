from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HttpCall(_message.Message):
    __slots__ = ("penstock_body",)
    PENSTOCK_BODY_FIELD_NUMBER: _ClassVar[int]
    penstock_body: _httpbody_pb2.HttpBody
    def __init__(self, penstock_body: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...
