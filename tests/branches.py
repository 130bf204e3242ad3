"""Fails where too few branches were taken: `python -m tests.branches REPORT PERCENT`, a report of `coverage json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str, wanted: str) -> int:
    """Print the share of each package; 1 if one is under what is wanted, else 0."""
    files = json.loads(Path(report).read_text())["files"]
    status = 0
    for package in ("pool", "scheduler"):
        sums = [found["summary"] for name, found in files.items() if name.startswith(f"{package}/")]
        taken = sum(summary["covered_branches"] for summary in sums)
        share = 100 * taken / sum(summary["num_branches"] for summary in sums)
        print(f"{package}: {share:.1f} % of the branches were taken, {wanted} % are wanted")
        status |= share < float(wanted)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
