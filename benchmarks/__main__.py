"""Measure speed: python -m benchmarks [SUITE ...]"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from benchmarks import SUITES, benchmark, render
from ghostdet.errors import UserError
from ghostdet.utils.files import check_writable


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed")
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"what to measure: {', '.join(SUITES)} (default: all)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        metavar="N",
        help="how often each run is timed (default: 20)",
    )
    parser.add_argument(
        "--data-root",
        default="data/coco",
        metavar="DIR",
        help="COCO, for the suite loading (default: data/coco)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="file to write as well; a page goes beside it"
    )
    args = parser.parse_args()
    unknown = set(args.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; choose from {', '.join(SUITES)}")
    if args.json and not args.json.endswith(".json"):
        parser.error(f"--json is {args.json!r}, expected a file that ends in .json")
    return args


def main() -> None:
    args = parse_args()
    if args.json:
        check_writable(Path(args.json).parent, "--json")
    suites = args.suites or list(SUITES)
    results = benchmark(suites, args.device, args.threads, args.rounds, args.data_root)
    results["command"] = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    page = render(results)
    print(page)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
        Path(args.json).with_suffix(".md").write_text(page)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error.text}")
