"""``python -m rules`` in scripts/."""

import sys

from rules import main

sys.exit(main(sys.argv[1:]))
