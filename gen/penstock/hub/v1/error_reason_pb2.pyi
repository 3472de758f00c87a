from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    UNAUTHENTICATED: _ClassVar[ErrorReason]
    PERMISSION_DENIED: _ClassVar[ErrorReason]
    FIELD_UNKNOWN: _ClassVar[ErrorReason]
    FILTER_INVALID: _ClassVar[ErrorReason]
    ORDER_INVALID: _ClassVar[ErrorReason]
    PAGE_TOKEN_INVALID: _ClassVar[ErrorReason]
    FORMAT_UNKNOWN: _ClassVar[ErrorReason]
    RECORD_NOT_FOUND: _ClassVar[ErrorReason]
    RECORD_EXISTS: _ClassVar[ErrorReason]
    ETAG_MISMATCH: _ClassVar[ErrorReason]
    VALUE_INVALID: _ClassVar[ErrorReason]
    IMPORT_ROW_INVALID: _ClassVar[ErrorReason]
    IMPORT_FORMAT_INVALID: _ClassVar[ErrorReason]
    IMPORT_TRUNCATED: _ClassVar[ErrorReason]
    REQUEST_TOO_LARGE: _ClassVar[ErrorReason]
    DATABASE_UNAVAILABLE: _ClassVar[ErrorReason]
    INTERNAL: _ClassVar[ErrorReason]
    CONFLICT: _ClassVar[ErrorReason]
    STORAGE_FULL: _ClassVar[ErrorReason]
    CLIENT_STALLED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
UNAUTHENTICATED: ErrorReason
PERMISSION_DENIED: ErrorReason
FIELD_UNKNOWN: ErrorReason
FILTER_INVALID: ErrorReason
ORDER_INVALID: ErrorReason
PAGE_TOKEN_INVALID: ErrorReason
FORMAT_UNKNOWN: ErrorReason
RECORD_NOT_FOUND: ErrorReason
RECORD_EXISTS: ErrorReason
ETAG_MISMATCH: ErrorReason
VALUE_INVALID: ErrorReason
IMPORT_ROW_INVALID: ErrorReason
IMPORT_FORMAT_INVALID: ErrorReason
IMPORT_TRUNCATED: ErrorReason
REQUEST_TOO_LARGE: ErrorReason
DATABASE_UNAVAILABLE: ErrorReason
INTERNAL: ErrorReason
CONFLICT: ErrorReason
STORAGE_FULL: ErrorReason
CLIENT_STALLED: ErrorReason
