"""Download or link COCO 2017: python tools/prepare_coco.py --data-root data/coco"""

import argparse

import _cli

PARTS = ("annotations", "val2017", "train2017")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Download or link COCO 2017")
    parser.add_argument(
        "--data-root",
        default="data/coco",
        metavar="DIR",
        help="folder to write into (default: data/coco)",
    )
    parser.add_argument(
        "--link", metavar="DIR", help="link to a COCO on disk instead of downloading"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.datasets import prepare_coco

    root = prepare_coco(args.data_root, link=args.link, parts=args.parts)
    print(f"COCO 2017 ({', '.join(args.parts)}) is in {root}")


if __name__ == "__main__":
    _cli.run(main)
