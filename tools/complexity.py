"""Count parameters and MACs: python tools/complexity.py CONFIG..."""

import argparse
import json
from pathlib import Path

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count parameters and MACs")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config file")
    parser.add_argument(
        "--shape",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="size of the image (default: the size that the config's pipeline makes)",
    )
    parser.add_argument("--json", metavar="FILE", help="file to write as well")
    _cli.add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.analysis import complexity, complexity_table
    from ghostdet.config import load_config
    from ghostdet.utils.files import check_writable

    if args.json:
        check_writable(Path(args.json).parent, "--json")
    configs = [load_config(c, cfg_options=args.cfg_options) for c in args.configs]
    results = [complexity(cfg, args.shape) for cfg in configs]
    print(complexity_table(results))
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    _cli.run(main)
