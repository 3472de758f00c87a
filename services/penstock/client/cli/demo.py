"""The file of the demo on this machine: its address and the credentials of its consumers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from penstock.client.cli.failures import Failure


def demo_file() -> Path:
    """The file with the demo's credentials, in the folder that PENSTOCK_DATA_DIR names."""
    return Path(os.environ.get("PENSTOCK_DATA_DIR") or ".penstock") / "demo.json"


def demo_consumers() -> list[str]:
    """The demo's consumers, by name; empty if there is no demo here."""
    return sorted(read_demo().get("consumers", {}))


def read_demo() -> dict[str, Any]:
    """The content of the demo's file; empty if there is none."""
    path = demo_file()
    try:
        demo = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failure(f"{path} is damaged: {error}") from None
    if not isinstance(demo, dict) or not isinstance(demo.get("consumers"), dict):
        raise Failure(f"{path} is damaged: it names no consumers")
    return demo
