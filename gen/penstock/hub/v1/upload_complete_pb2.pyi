from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class UploadComplete(_message.Message):
    __slots__ = ("byte_count", "sha256")
    BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    byte_count: int
    sha256: bytes
    def __init__(self, byte_count: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...
