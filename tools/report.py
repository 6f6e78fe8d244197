"""Write the table of finished runs: python tools/report.py WORK_DIR..."""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the table of finished runs")
    parser.add_argument(
        "work_dirs",
        nargs="+",
        metavar="WORK_DIR",
        help="work directory of a finished run; seeds of one config make one row",
    )
    parser.add_argument(
        "--out",
        default="work_dirs/table",
        metavar="DIR",
        help="folder for table.md, table.json and curves.png (default: "
        "work_dirs/table)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.analysis.results_table import write_table

    print(write_table(args.work_dirs, args.out))


if __name__ == "__main__":
    _cli.run(main)
