"""Measure what people wait for: python scripts/benchmark.py [NAME ...], all of it by default.

A benchmark is a file in `benchmarks` with `section()` and `THREADS`. Each runs in a process of its own, with that many
threads; its table goes to scripts/benchmark.md, where benchmarks that are not named keep what stands there.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measuring import Measured, Row, Section

FOLDER = Path(__file__).with_name("benchmarks")
TABLES = Path(__file__).with_suffix(".md")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef section(" in path.read_text())
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
HEAD = """What `python scripts/benchmark.py` measured, in seconds: medians, ours and the peer's in the same run.

The floor is what the bytes and operations take at rates measured in the same run. Memory is the process's own, without
pages of mapped files. What could not be measured says so, and nothing here is estimated."""
COLUMNS = "| work | ours | peer | its seconds | ratio | floor | of the floor | peak memory | to reach | reached |"


def main(names: list[str]) -> int:
    """Measure each in its own process, and write the tables."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}, expected some of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        threads = re.search(r"^THREADS = (\d+)", (FOLDER / f"{name}.py").read_text(), re.M)
        number = threads[1] if threads else "1"
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, number) | {"COLUMNS": "120"}
        command = [sys.executable, __file__, "--here", name]
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            return code
    return 0


def measure_here(name: str) -> None:
    """Measure one, in this process."""
    from benchmarks.measuring import machine

    benchmark = importlib.import_module(f"benchmarks.{name}")
    section = benchmark.section()
    sections = _sections() | {name: _text(section, f"{machine()}, threads: {benchmark.THREADS}.")}
    print(sections[name])
    text = "\n\n".join([HEAD, *(f"## {name}\n\n{sections[name]}" for name in sorted(sections))])
    TABLES.write_text(text + "\n")


def _sections() -> dict[str, str]:
    """What stands in the file now, by benchmark."""
    text = TABLES.read_text() if TABLES.exists() else ""
    return {name: body.strip() for name, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)}


def _text(section: Section, machine: str) -> str:
    lines = [COLUMNS, "| --- " * 10 + "|", *map(_line, section.rows)]
    remarks = [f"{row.work}: {row.note}" for row in section.rows if row.note] + section.notes
    return "\n".join(
        [f"{section.head} {machine}", "", *lines, *(["", *(f"- {each}" for each in remarks)] * bool(remarks))]
    )


def _line(row: Row) -> str:
    ours, peers, floor = row.ours, row.peers, row.floor
    cells = [
        row.work,
        "not measured" if ours is None else _with_runs(ours),
        row.peer,
        _with_runs(peers) if peers else ("not measured" if row.peer else ""),
        f"{peers.seconds / ours.seconds:.1f}" if ours and peers else "",
        "" if floor is None else _seconds(floor),
        f"{ours.seconds / floor:.2f}" if ours and floor else "",
        f"{ours.peak_bytes / 1e9:.2f} GB" if ours and ours.peak_bytes > 5e6 else "",
        row.target,
        "" if row.reached is None or ours is None else ("yes" if row.reached else "**no**"),
    ]
    return f"| {' | '.join(cells)} |"


def _with_runs(measured: Measured) -> str:
    return f"{_seconds(measured.seconds)} ({measured.runs})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:,.0f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        measure_here(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
