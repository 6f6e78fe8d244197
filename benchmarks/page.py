"""Results as a page."""

from __future__ import annotations

from typing import Any

from ghostdet.errors import UserError

INTRODUCTION = """\
`{command}`
measured all of this that names no other command. Within a table all runs took turns in
one process. "Times as fast" is the median of the ratios within each turn to the run
that has 1.00, so that a machine that is slow for a while slows both. GFLOP/s are those
of convolutions and matrix products, two operations a multiply-accumulate. The peak is
that of the product of two matrices of 2048x2048, which took turns with the others, in
bf16 for runs in bf16."""
HEAD = ("", "median, ms", "quartiles, ms", "times as fast", "GFLOP/s", "of the peak")


def render(results: dict[str, Any]) -> str:
    """Lay out results as a Markdown page.

    Args:
        results: Of :func:`~benchmarks.benchmark`, and the ``command``.
    """
    machine = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    lines = [
        "# Benchmarks",
        "",
        f"<!-- Written by `{results['command']}`; do not edit. -->",
        "",
        INTRODUCTION.format(command=results["command"]),
        "",
        f"- CPU: {machine['cpu']}, {machine['threads']} threads",
    ]
    if machine["gpu"]:
        lines.append(f"- GPU: {machine['gpu']}")
    lines.append(f"- {versions}")
    for table in results["tables"]:
        lines += ["", f"## {table['title']}", ""]
        if table.get("command", results["command"]) != results["command"]:
            lines += [f"Measured by `{table['command']}`.", ""]
        if table["note"]:
            lines += [table["note"], ""]
        if "columns" in table:
            head = ["", *table["columns"]]
            lines += [_row(head), _row(["---"] * len(head))]
            lines += [_row([name, *map(_number, v)]) for name, v in table["rows"]]
            continue
        peaks = any("gflops" in row for row in table["rows"])
        columns = len(HEAD) if peaks else 4
        lines += [_row(HEAD[:columns]), _row(["---"] * columns)]
        lines += [_row(_cells(row)[:columns]) for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    """A number with about three digits; '' for none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


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


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Put tables in place of older ones with the same titles, or behind them.

    Args:
        old: Results with their ``command``.
        new: Others, of the same machine.

    Returns:
        Both, where each table that is not of the old command names its own.

    Raises:
        UserError: If machines or versions differ.
    """
    if old["machine"] != new["machine"]:
        raise UserError(
            "--update is for results of the same machine, threads and versions.\n"
            f"  there: {old['machine']}\n  here:  {new['machine']}\n"
            "Leave --update out to measure everything again"
        )
    tables = {table["title"]: table for table in old["tables"]}
    for table in new["tables"]:
        tables[table["title"]] = {**table, "command": new["command"]}
    return {**old, "tables": list(tables.values())}
