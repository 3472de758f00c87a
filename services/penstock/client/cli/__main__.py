"""``python -m penstock.client.cli`` is ``penstock``."""

from penstock.client.cli import main

main()
