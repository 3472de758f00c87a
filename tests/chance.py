"""The source of all randomness in the tests.

The seed is the same in every run, so that a test that passed once passes again. PENSTOCK_FUZZ_SEED
sets another; "random" draws one, as scripts/soak does. A failure names the seed that repeats it.
"""

from __future__ import annotations

import os
import random

_GIVEN = os.environ.get("PENSTOCK_FUZZ_SEED", "20261128")
#: Whether every run differs.
DRAWN = _GIVEN == "random"
SEED = random.randrange(2**32) if DRAWN else int(_GIVEN)
