import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from penstock.options.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Customer(_message.Message):
    __slots__ = ("customer_id", "name", "kind", "status", "email", "phone", "tax_id", "billing_address", "currency_code", "credit_limit", "lifetime_value", "marketing_opt_in", "tags", "notes", "birth_date", "source", "source_id", "create_time", "update_time", "etag")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Customer.Kind]
        PERSON: _ClassVar[Customer.Kind]
        COMPANY: _ClassVar[Customer.Kind]
    KIND_UNSPECIFIED: Customer.Kind
    PERSON: Customer.Kind
    COMPANY: Customer.Kind
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Customer.Status]
        LEAD: _ClassVar[Customer.Status]
        ACTIVE: _ClassVar[Customer.Status]
        CHURNED: _ClassVar[Customer.Status]
    STATUS_UNSPECIFIED: Customer.Status
    LEAD: Customer.Status
    ACTIVE: Customer.Status
    CHURNED: Customer.Status
    class Address(_message.Message):
        __slots__ = ("line1", "line2", "city", "region", "postal_code", "country_code")
        LINE1_FIELD_NUMBER: _ClassVar[int]
        LINE2_FIELD_NUMBER: _ClassVar[int]
        CITY_FIELD_NUMBER: _ClassVar[int]
        REGION_FIELD_NUMBER: _ClassVar[int]
        POSTAL_CODE_FIELD_NUMBER: _ClassVar[int]
        COUNTRY_CODE_FIELD_NUMBER: _ClassVar[int]
        line1: str
        line2: str
        city: str
        region: str
        postal_code: str
        country_code: str
        def __init__(self, line1: _Optional[str] = ..., line2: _Optional[str] = ..., city: _Optional[str] = ..., region: _Optional[str] = ..., postal_code: _Optional[str] = ..., country_code: _Optional[str] = ...) -> None: ...
    CUSTOMER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EMAIL_FIELD_NUMBER: _ClassVar[int]
    PHONE_FIELD_NUMBER: _ClassVar[int]
    TAX_ID_FIELD_NUMBER: _ClassVar[int]
    BILLING_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_CODE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_VALUE_FIELD_NUMBER: _ClassVar[int]
    MARKETING_OPT_IN_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    BIRTH_DATE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    customer_id: str
    name: str
    kind: Customer.Kind
    status: Customer.Status
    email: str
    phone: str
    tax_id: str
    billing_address: Customer.Address
    currency_code: str
    credit_limit: str
    lifetime_value: str
    marketing_opt_in: bool
    tags: _containers.RepeatedScalarFieldContainer[str]
    notes: str
    birth_date: str
    source: str
    source_id: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, customer_id: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[_Union[Customer.Kind, str]] = ..., status: _Optional[_Union[Customer.Status, str]] = ..., email: _Optional[str] = ..., phone: _Optional[str] = ..., tax_id: _Optional[str] = ..., billing_address: _Optional[_Union[Customer.Address, _Mapping]] = ..., currency_code: _Optional[str] = ..., credit_limit: _Optional[str] = ..., lifetime_value: _Optional[str] = ..., marketing_opt_in: _Optional[bool] = ..., tags: _Optional[_Iterable[str]] = ..., notes: _Optional[str] = ..., birth_date: _Optional[str] = ..., source: _Optional[str] = ..., source_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...
