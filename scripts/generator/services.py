"""A dataset's description -> the definition of its typed service."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstockd.catalog import Dataset
from penstockd.catalog.keys import JOINER, REQUEST_KEY

MODEL_FOLDER = "penstock/model/v1"
API_FOLDER = "penstock/api/v1"
#: Below it are the datasets whose names the hub's own paths have.
FALLBACK = "data"


def write_services(datasets: list[Dataset], protos: Path, taken: Collection[str]) -> None:
    """Write ``penstock/api/v1/<dataset>_service.proto`` under ``protos`` for each dataset.

    ``taken`` are the names after ``/v1/`` that the paths of the hub's own services begin with.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["comment"] = _comment
    template = environment.get_template("service.proto.j2")
    folder = protos / API_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        text = template.render(_names(dataset, taken))
        (folder / f"{dataset.name}_service.proto").write_text(text, encoding="utf-8")


def _names(dataset: Dataset, taken: Collection[str]) -> dict[str, str | bool]:
    """The names that the template combines: ``Customers``, ``Customer``, ``/v1/customers``."""
    about = f"Reads and writes {dataset.name.replace('_', ' ')}. A record: {dataset.description}"
    return {
        "source": f"{MODEL_FOLDER}/{dataset.name}.proto",
        "about": about,
        "name": dataset.name,
        "records": "".join(word.capitalize() for word in dataset.name.split("_")),
        "record": dataset.message_type.name,
        "singular": dataset.singular,
        "type": dataset.message_type.full_name,
        "key": REQUEST_KEY if dataset.joins_key else dataset.key.path,
        "joins_key": dataset.joins_key,
        "key_form": JOINER.join(f.path for f in dataset.key_fields),
        "field": dataset.key_fields[0].path,
        "path": rest_path(dataset.name, taken),
    }


def rest_path(dataset: str, taken: Collection[str]) -> str:
    """The REST path of a dataset: ``/v1/customers``, or ``/v1/data/receipts`` where the hub has
    paths of its own under the dataset's name."""
    return f"/v1/{FALLBACK}/{dataset}" if dataset in {*taken, FALLBACK} else f"/v1/{dataset}"


def _comment(text: str) -> str:
    """``text`` as the lines of a proto comment."""
    return textwrap.fill(text, 80, initial_indent="// ", subsequent_indent="// ")
