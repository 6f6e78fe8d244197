"""Train and evaluate on photographs of trees: make demo"""

import argparse
from pathlib import Path

import _cli

CONFIG = Path(__file__).parents[1] / "configs/demo/light_s_trees.py"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train on photographs of trees")
    parser.add_argument(
        "config", nargs="?", default=CONFIG, help="a config for the trees"
    )
    parser.add_argument("--work-dir", default="work_dirs/demo", metavar="DIR")
    parser.add_argument("--data-root", default="data/trees", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.analysis.demo import run_demo

    run_demo(args.config, args.work_dir, args.data_root, args.seed)


if __name__ == "__main__":
    _cli.run(main)
