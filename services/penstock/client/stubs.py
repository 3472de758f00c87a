"""The names of a dataset's generated stubs, read from their descriptors.

A dataset needs nothing but its stubs: the service's methods, the record's class and the key's
name follow from the file ``penstock/api/v1/<dataset>_service.proto``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import EnumDescriptor, MethodDescriptor
from google.protobuf.message import Message

from penstock.client.errors import UnknownDataset
from penstock.client.keys import find_key_fields
from penstock.options.v1 import options_pb2

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any

_PACKAGE = "penstock.api.v1"
_SUFFIX = "_service_pb2"


@dataclass(frozen=True)
class Stubs:
    """The names of one dataset's service. ``singular`` and ``plural`` are as in its methods, and
    ``key`` is the field of requests that holds a key as text."""

    dataset: str
    singular: str
    plural: str
    stub_class: Any
    record_class: type[Message]
    key: str
    key_fields: tuple[FieldDescriptor, ...]
    output_only: frozenset[str]
    methods: dict[str, MethodDescriptor]

    def method(self, verb: str, *, many: bool = False) -> str:
        """The name of a method, such as "GetCustomer" or, with ``many``, "ListCustomers"."""
        return verb + (self.plural if many else self.singular)

    def request(self, method: str) -> type[Message]:
        """The request class of a method."""
        return message_factory.GetMessageClass(self.methods[method].input_type)

    def record_field(self, method: str) -> str:
        """The request field that holds the record, or the records, of a writing method."""
        fields = self.methods[method].input_type.fields
        record = self.record_class.DESCRIPTOR
        return next(str(f.name) for f in fields if f.message_type is record)

    def page_field(self, method: str) -> str:
        """The reply field that holds the records of a page."""
        return str(_records_field(self.methods[method].output_type).name)


@cache
def load_stubs(dataset: str) -> Stubs:
    """The stubs of a dataset. Raises UnknownDataset if none are installed."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", dataset):
        raise UnknownDataset(dataset, known_datasets())
    name = f"{_PACKAGE}.{dataset}{_SUFFIX}"
    try:
        messages = importlib.import_module(name)
        services = importlib.import_module(f"{name}_grpc")
    except ModuleNotFoundError as error:
        if error.name not in (_PACKAGE, name, f"{name}_grpc"):
            raise
        raise UnknownDataset(dataset, known_datasets()) from None
    (service,) = messages.DESCRIPTOR.services_by_name.values()
    methods = dict(service.methods_by_name)
    record = _records_field(methods[f"List{service.name}"].output_type).message_type
    return Stubs(
        dataset=dataset,
        singular=record.name,
        plural=service.name,
        stub_class=getattr(services, f"{service.name}Stub"),
        record_class=message_factory.GetMessageClass(record),
        key=methods[f"Get{record.name}"].input_type.fields_by_number[1].name,
        key_fields=find_key_fields(record),
        output_only=frozenset(f.name for f in record.fields if field_options(f).output_only),
        methods=methods,
    )


def field_options(field: FieldDescriptor) -> options_pb2.FieldOptions:
    """The model's options of a field: its class, its encoding, who writes it."""
    options: options_pb2.FieldOptions = field.GetOptions().Extensions[options_pb2.field]
    return options


def enum_labels(enum: EnumDescriptor) -> dict[str, int]:
    """The numbers of an enum's values by their labels, or by their names where there are none."""
    label: Any = options_pb2.label
    given = ((value, value.GetOptions()) for value in enum.values)
    return {o.Extensions[label] if o.HasExtension(label) else v.name: v.number for v, o in given}


def known_datasets() -> list[str]:
    """The datasets with installed stubs, by name."""
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        return []
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(n.removesuffix(_SUFFIX) for n in names if n.endswith(_SUFFIX))


def _records_field(page: Descriptor) -> FieldDescriptor:
    return next(f for f in page.fields if f.is_repeated and f.message_type is not None)
