import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Shape(_message.Message):
    __slots__ = ("shape_id", "version", "dataset", "title", "columns", "create_time", "rows")
    SHAPE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    shape_id: str
    version: int
    dataset: str
    title: str
    columns: _containers.RepeatedCompositeFieldContainer[ShapeColumn]
    create_time: _timestamp_pb2.Timestamp
    rows: ListRows
    def __init__(self, shape_id: _Optional[str] = ..., version: _Optional[int] = ..., dataset: _Optional[str] = ..., title: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[ShapeColumn, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rows: _Optional[_Union[ListRows, _Mapping]] = ...) -> None: ...

class ListRows(_message.Message):
    __slots__ = ("field", "skip_empty")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    SKIP_EMPTY_FIELD_NUMBER: _ClassVar[int]
    field: str
    skip_empty: bool
    def __init__(self, field: _Optional[str] = ..., skip_empty: _Optional[bool] = ...) -> None: ...

class ShapeColumn(_message.Message):
    __slots__ = ("name", "field", "constant", "expression", "row_number", "join", "values", "otherwise", "number_format", "time_format", "default_value", "skip_on_import", "import_problem")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBER_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OTHERWISE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TIME_FORMAT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    SKIP_ON_IMPORT_FIELD_NUMBER: _ClassVar[int]
    IMPORT_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    field: str
    constant: str
    expression: str
    row_number: bool
    join: str
    values: _containers.ScalarMap[str, str]
    otherwise: str
    number_format: NumberFormat
    time_format: str
    default_value: str
    skip_on_import: bool
    import_problem: str
    def __init__(self, name: _Optional[str] = ..., field: _Optional[str] = ..., constant: _Optional[str] = ..., expression: _Optional[str] = ..., row_number: _Optional[bool] = ..., join: _Optional[str] = ..., values: _Optional[_Mapping[str, str]] = ..., otherwise: _Optional[str] = ..., number_format: _Optional[_Union[NumberFormat, _Mapping]] = ..., time_format: _Optional[str] = ..., default_value: _Optional[str] = ..., skip_on_import: _Optional[bool] = ..., import_problem: _Optional[str] = ...) -> None: ...

class NumberFormat(_message.Message):
    __slots__ = ("decimals", "decimal_separator", "group_separator")
    DECIMALS_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_SEPARATOR_FIELD_NUMBER: _ClassVar[int]
    GROUP_SEPARATOR_FIELD_NUMBER: _ClassVar[int]
    decimals: int
    decimal_separator: str
    group_separator: str
    def __init__(self, decimals: _Optional[int] = ..., decimal_separator: _Optional[str] = ..., group_separator: _Optional[str] = ...) -> None: ...

class CreateShapeRequest(_message.Message):
    __slots__ = ("shape",)
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    shape: Shape
    def __init__(self, shape: _Optional[_Union[Shape, _Mapping]] = ...) -> None: ...

class UpdateShapeRequest(_message.Message):
    __slots__ = ("shape",)
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    shape: Shape
    def __init__(self, shape: _Optional[_Union[Shape, _Mapping]] = ...) -> None: ...

class GetShapeRequest(_message.Message):
    __slots__ = ("shape_id", "version")
    SHAPE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    shape_id: str
    version: int
    def __init__(self, shape_id: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ListShapesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListShapesResponse(_message.Message):
    __slots__ = ("shapes", "next_page_token")
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    shapes: _containers.RepeatedCompositeFieldContainer[Shape]
    next_page_token: str
    def __init__(self, shapes: _Optional[_Iterable[_Union[Shape, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteShapeRequest(_message.Message):
    __slots__ = ("shape_id",)
    SHAPE_ID_FIELD_NUMBER: _ClassVar[int]
    shape_id: str
    def __init__(self, shape_id: _Optional[str] = ...) -> None: ...

class CompareShapesRequest(_message.Message):
    __slots__ = ("shape_id", "from_version", "to_version")
    SHAPE_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    shape_id: str
    from_version: int
    to_version: int
    def __init__(self, shape_id: _Optional[str] = ..., from_version: _Optional[int] = ..., to_version: _Optional[int] = ...) -> None: ...

class CompareShapesResponse(_message.Message):
    __slots__ = ("differences", "before_rows", "after_rows")
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ROWS_FIELD_NUMBER: _ClassVar[int]
    AFTER_ROWS_FIELD_NUMBER: _ClassVar[int]
    differences: _containers.RepeatedCompositeFieldContainer[ColumnDifference]
    before_rows: ListRows
    after_rows: ListRows
    def __init__(self, differences: _Optional[_Iterable[_Union[ColumnDifference, _Mapping]]] = ..., before_rows: _Optional[_Union[ListRows, _Mapping]] = ..., after_rows: _Optional[_Union[ListRows, _Mapping]] = ...) -> None: ...

class ColumnDifference(_message.Message):
    __slots__ = ("name", "from_position", "to_position", "before", "after")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_POSITION_FIELD_NUMBER: _ClassVar[int]
    TO_POSITION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    from_position: int
    to_position: int
    before: ShapeColumn
    after: ShapeColumn
    def __init__(self, name: _Optional[str] = ..., from_position: _Optional[int] = ..., to_position: _Optional[int] = ..., before: _Optional[_Union[ShapeColumn, _Mapping]] = ..., after: _Optional[_Union[ShapeColumn, _Mapping]] = ...) -> None: ...

class PreviewShapeRequest(_message.Message):
    __slots__ = ("shape", "filter", "format", "page_size")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    shape: Shape
    filter: str
    format: str
    page_size: int
    def __init__(self, shape: _Optional[_Union[Shape, _Mapping]] = ..., filter: _Optional[str] = ..., format: _Optional[str] = ..., page_size: _Optional[int] = ...) -> None: ...
