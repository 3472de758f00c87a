"""``python -m penstockd.demo.loading``: imports the demo company as a client."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from penstock.client import Client, PenstockError
from penstockd.demo import DATASETS, generate_records
from penstockd.output import PROGRESS, guard_output


def load_company(file: Path, loaded: Path, door: str, customers: int) -> None:
    """Import ``customers`` customers and their records, unless the file ``loaded`` says it is done.

    ``file`` holds the credentials of the demo. Raises PenstockError and OSError.
    """
    admin = json.loads(file.read_text())["consumers"]["admin"]
    with Client(door, api_key=admin["api_key"]) as client:
        if not loaded.exists() or int(loaded.read_text()) < customers:
            for dataset in DATASETS:
                print(f"{PROGRESS}loading the demo: {dataset}", flush=True)
                client.dataset(dataset).import_(generate_records(dataset, customers), "CSV")
            loaded.write_text(str(customers))
        for _ in client.dataset("customers").export("CSV", limit=1):
            pass


def main() -> None:
    """Load the company that the arguments describe; a failure prints one line on standard error.

    Standard output says which dataset is being loaded.
    """
    guard_output()  # a progress line that cannot be written, for lack of space, is not a failure
    file, loaded, door, customers = sys.argv[1:]
    try:
        load_company(Path(file), Path(loaded), door, int(customers))
    except (PenstockError, OSError) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
