"""Write the table of docs/speed.md from what bench_sweep.py, bench_dlam.py and bench_relaxed.py have left behind.

`make bench` runs all three and then this. The table is what is between the two markers.

    python benchmarks/speed_report.py [FILE.json ...] [--page docs/speed.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FILES = [Path(f"benchmark{of}.json") for of in ("", "_dlam", "_relaxed")]
BEGIN, END = "<!-- written by make bench -->\n", "<!-- end of what make bench writes -->\n"


class Row(NamedTuple):
    """Seconds of a method, of its floor, and of the published formulas where they were timed."""

    method: str
    workload: str
    threads: int
    seconds: float
    floor: float
    published: float | None = None

    def text(self) -> str:
        """In Markdown."""
        published = f"{self.published / self.floor:.1f}" if self.published else ""
        unit, scale = ("ms", 1e3) if self.seconds < 0.1 else ("s", 1)
        cells = (
            self.method, self.workload, self.threads, f"{self.seconds * scale:.3g} {unit}", published,
            f"{self.seconds / self.floor:.2f}", f"{100 * self.floor / self.seconds:.0f}",
        )  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


def rows_of(entry: dict[str, Any]) -> Iterator[Row]:
    """What an entry of any of the three files says."""
    threads = entry["threads"]
    if "method" in entry:
        published = entry.get("published_seconds")
        yield Row(entry["method"], entry["workload"], threads, entry["torchbcd_seconds"], entry["floor_seconds"],
                  published)  # fmt: skip
    elif "workload" in entry:
        for name, floor in entry["floors"].items():
            published = None if name == "dlADMM" else entry["published_seconds"]
            said = "DLAM, joint" if name == "joint" else name
            yield Row(said, entry["workload"], threads, entry[f"{name}_seconds"], floor, published)
    else:
        for name, said in (("defaults", "RelaxedBCD"), ("adam", "Adam, for comparison")):
            yield Row(said, f"200 rows, {entry['net']}, mini-batch", threads, entry[name] / 1e3,
                      entry["floors"][name] / 1e3)  # fmt: skip


def main() -> None:
    """Read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", default=FILES, help="default: those of make bench")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/speed.md", help="default: docs/speed.md")
    arguments = parser.parse_args()
    entries = [entry for path in arguments.files for entry in json.loads(path.read_text())]
    lines = [
        "| method | workload | threads | time | published / floor | torchbcd / floor | share of the floor, % |",
        "|---|---|---|---|---|---|---|",
        *(row.text() for entry in entries for row in rows_of(entry)),
    ]
    before, _, rest = arguments.page.read_text().partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise SystemExit(f"{arguments.page}: the markers are missing")
    arguments.page.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)
    print(f"{arguments.page}: {len(lines) - 2} rows")


if __name__ == "__main__":
    main()
