"""The files that the hub reads as data: descriptors, Envoy's configuration, the console.

They are in the package in a wheel, and in ``gen/`` and ``envoy/`` in a checkout. A hub whose model
was generated elsewhere reads them from another ``tree``, with the layout of a checkout (see
``Settings.resources``). All functions raise FileNotFoundError if their file or folder is missing.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_IN_WHEEL = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parents[1]


def find_descriptors(tree: Path | None = None) -> Path:
    """The descriptor set of all protos, for ``load_catalog``."""
    return _find_resource(tree, "gen/descriptors/hub.binpb", "descriptors/hub.binpb")


def door_descriptors(tree: Path | None = None) -> Path:
    """The descriptor set of the REST door and of the details of errors, for Envoy's transcoder:
    small, because Envoy reads it for each route of a stream."""
    return _find_resource(tree, "gen/descriptors/rest.binpb", "descriptors/rest.binpb")


def envoy_inputs(tree: Path | None = None) -> Path:
    """The generator's data about the services for Envoy's templates, as JSON."""
    return _find_resource(tree, "gen/envoy/inputs.json", "envoy/inputs.json")


def envoy_templates(tree: Path | None = None) -> Path:
    """The folder of Envoy's configuration templates."""
    return _find_resource(tree, "envoy", "envoy/templates")


def find_portal(tree: Path | None = None) -> Path:
    """The folder of the built console."""
    return _find_resource(tree, "gen/portal", "portal")


def _find_resource(tree: Path | None, in_checkout: str, in_wheel: str) -> Path:
    if tree is not None:
        path = tree.resolve() / in_checkout
    elif _IN_WHEEL.is_dir():
        path = _IN_WHEEL / in_wheel
    else:
        path = _CHECKOUT / in_checkout
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the installation is not complete")
    return path
