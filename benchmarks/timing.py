"""Take comparable times: by turns, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.benchmark import timer
from tqdm import tqdm

#: Side of the square matrices whose product is the machine's peak.
MATRIX = 2048
PEAKS = {"fp32": torch.float32, "bf16": torch.bfloat16}

Run = Callable[[], object]


def take_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Time runs by turns, so that what disturbs one disturbs all.

    Each round begins with another run. Each run warms up once before it is timed. The
    first round is not counted. PyTorch's clock waits for the GPU.

    Args:
        runs: Functions by name.
        rounds: Number of rounds.

    Returns:
        Milliseconds of each round, by name.
    """
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in tqdm(range(rounds + 1), unit="round", leave=False):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(0.03)  # the threads of whoever ran before spin for a while
            runs[name]()
            start = timer()
            runs[name]()
            times[name].append((timer() - start) * 1e3)
    return {name: values[1:] for name, values in times.items()}


def matrix_products(device: str) -> dict[str, Run]:
    """Make products of matrices, which measure the machine's peak.

    They are 1x1 convolutions, since oneDNN is faster on AMD's CPUs than MKL, which
    computes ``@``.
    """
    runs = {}
    for precision, dtype in PEAKS.items():
        x = torch.rand(1, MATRIX, 1, MATRIX, device=device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.rand(MATRIX, MATRIX, 1, 1, device=device).to(dtype)
        runs[f"matrix product, {precision}"] = partial(F.conv2d, x, weight)
    return runs


def summarize(
    times: dict[str, list[float]],
    against: str,
    macs: dict[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Compute medians, quartiles and ratios.

    A ratio is the median of the ratios within each round: a machine that is slow for a
    while slows both.

    Args:
        times: From :func:`take_turns`.
        against: Name of the run that the others are compared with.
        macs: Multiply-accumulates of runs, by name. With :func:`matrix_products` among
            ``times``, each gets a share of the peak, in bf16 if its name ends so.

    Returns:
        For each run ``name``, ``median`` and ``quartiles`` in ms, ``speed`` (ratio to
        ``against``), and if known ``gflops`` (two operations for a multiply-accumulate)
        and ``peak_share``.
    """
    products = {f"matrix product, {p}": MATRIX**3 for p in PEAKS}
    macs = {**products, **(macs or {})}
    rows = []
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        row = dict(
            name=name,
            median=median,
            quartiles=[low, high],
            speed=_ratio(times[against], values),
            rounds=len(values),
        )
        if name in macs:
            row["gflops"] = 2 * macs[name] / median / 1e6
        precision = next((p for p in PEAKS if name.endswith(p)), "fp32")
        peak = f"matrix product, {precision}"
        if name in macs and peak in times and not name.endswith("INT8"):
            row["peak_share"] = _ratio(times[peak], values) * macs[name] / MATRIX**3
        rows.append(row)
    return rows


def _ratio(ours: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others))
