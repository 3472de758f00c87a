"""The unified data model in the hub: datasets and fields, read once from descriptors."""

from penstockd.catalog.model import (
    MOVING,
    Catalog,
    Dataset,
    Field,
    FieldClass,
    Kind,
    ModelError,
    Reference,
)

__all__ = ["MOVING", "Catalog", "Dataset", "Field", "FieldClass", "Kind", "ModelError", "Reference"]
