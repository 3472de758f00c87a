"""Makes ``tests.envoy.fake_hub`` importable, from here and from tests/unit/node."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
