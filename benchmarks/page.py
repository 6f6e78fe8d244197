"""Render results as a page."""

from __future__ import annotations

from typing import Any

INTRODUCTION = """\
Measured by

    {command}

Within a table all runs took turns in one process. "Times as fast" is the median of the
ratios within each turn to the run that has 1.00, so that a machine that is slow for a
while slows both. GFLOP/s count convolutions and matrix products, two operations for a
multiply-accumulate. The peak is the product of two matrices of 2048x2048 in the same
precision, which took turns with the other runs."""
HEAD = ("", "median, ms", "quartiles, ms", "times as fast", "GFLOP/s", "of the peak")


def render(results: dict[str, Any]) -> str:
    """Lay out the results of :func:`~benchmarks.benchmark`, with their ``command``."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        "<!-- Written by `python -m benchmarks`; do not edit. -->",
        "",
        INTRODUCTION.format(command=results["command"]),
        "",
        f"- CPU: {machine['cpu']}, {machine['threads']} threads",
    ]
    if machine["gpu"]:
        lines.append(f"- GPU: {machine['gpu']}")
    lines.append(f"- {versions}")
    for table in results["tables"]:
        peaks = any("gflops" in row for row in table["rows"])
        head = HEAD if peaks else HEAD[:4]
        lines += ["", f"## {table['title']}", "", table["note"], ""]
        lines += [_row(head), _row(["---"] * len(head))]
        lines += [_row(_cells(row)[: len(head)]) for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["quartiles"]
    return [
        row["name"],
        f"{row['median']:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{row['speed']:.2f}",
        f"{row['gflops']:.0f}" if "gflops" in row else "",
        f"{row['peak_share']:.0%}" if "peak_share" in row else "",
    ]


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
