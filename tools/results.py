"""Write the tables of the programs in tools/ to results/published/testing."""

from datetime import UTC, datetime

from braintumor.core.files import ROOT, atomic_write, write_json

TESTING = ROOT / "results/published/testing"


def save_results(name, table, record):
    """Write a program's table and its record, with the time: NAME.csv, NAME.json."""
    with atomic_write(TESTING / f"{name}.csv") as path:
        table.to_csv(path, index=False)
    finished = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"
    write_json(TESTING / f"{name}.json", {"finished": finished} | record)
