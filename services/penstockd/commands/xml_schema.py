"""GetXmlSchema: the schema of a dataset's XML, as far as the caller may see it."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import PermissionDenied
from penstockd.formats.xsd import xml_schema as derive
from penstockd.hub import Hub


def xml_schema(hub: Hub, call: Call, dataset: str) -> bytes:
    """The XML Schema of the fields that the caller's View of a dataset shows.

    Raises PermissionDenied if the caller may do nothing with the dataset or it does not exist.
    """
    call.asked(dataset=dataset[:100])
    view = call.policy.visible(call.principal, dataset)
    if view is None:
        raise PermissionDenied(f"you may not read {dataset[:100]}")
    call.entry.dataset = dataset
    return derive(view.dataset, view.fields(), view.hidden)
