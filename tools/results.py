"""Where the commands that test for minutes keep what they found: results/tested, which a page of the book shows."""

from datetime import UTC, datetime

from braintumor.core.files import ROOT, atomic, write_json


def keep(name, table, record):
    """Write a command's table and its record, with the time, to results/tested: NAME.csv and NAME.json."""
    with atomic(ROOT / f"results/tested/{name}.csv") as path:
        table.to_csv(path, index=False)
    write_json(ROOT / f"results/tested/{name}.json", {"finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"} | record)
