"""The files that the hub reads as data: descriptors, Envoy's configuration, the console.

They lie in the package in a wheel, and in ``gen/`` and ``envoy/`` in a checkout.
``PENSTOCK_RESOURCES`` names another tree with the layout of a checkout, for a hub whose model
was generated elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_IN_WHEEL = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parents[1]


def descriptors() -> Path:
    """The descriptor set of all protos, for ``load_catalog`` and for Envoy's transcoder."""
    return _find("gen/descriptors/hub.binpb", "descriptors/hub.binpb")


def envoy_inputs() -> Path:
    """What the generator tells Envoy's templates about the services, as JSON."""
    return _find("gen/envoy/inputs.json", "envoy/inputs.json")


def envoy_templates() -> Path:
    """The folder of Envoy's configuration templates."""
    return _find("envoy", "envoy/templates")


def portal() -> Path:
    """The folder of the built console."""
    return _find("gen/portal", "portal")


def _find(in_checkout: str, in_wheel: str) -> Path:
    override = os.environ.get("PENSTOCK_RESOURCES")
    if override:
        path = Path(override).resolve() / in_checkout
    elif _IN_WHEEL.is_dir():
        path = _IN_WHEEL / in_wheel
    else:
        path = _CHECKOUT / in_checkout
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the installation is not complete")
    return path
