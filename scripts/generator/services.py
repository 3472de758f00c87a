"""A dataset's description -> the definition of its typed service."""

from __future__ import annotations

import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstockd.catalog import Dataset

MODEL_FOLDER = "penstock/model/v1"
API_FOLDER = "penstock/api/v1"


def write_services(datasets: list[Dataset], protos: Path) -> None:
    """Write ``penstock/api/v1/<dataset>_service.proto`` under ``protos`` for each dataset."""
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
        text = template.render(_names(dataset))
        (folder / f"{dataset.name}_service.proto").write_text(text, encoding="utf-8")


def _names(dataset: Dataset) -> dict[str, str]:
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
        "key": dataset.key.path,
        "path": f"/v1/{dataset.name}",
    }


def _comment(text: str) -> str:
    """``text`` as the lines of a proto comment."""
    return textwrap.fill(text, 80, initial_indent="// ", subsequent_indent="// ")
