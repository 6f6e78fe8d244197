"""Start on your own data: ghostdet init NAME DATA"""

import argparse
import shlex

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Read a dataset (COCO, Pascal VOC, YOLO, labelme), and write a "
        "config (NAME.py), annotations (NAME/) and a picture of the labels (NAME.png)"
    )
    parser.add_argument("name", metavar="NAME", help="name of the project")
    parser.add_argument("data", metavar="DATA", help="folder of images and labels")
    parser.add_argument(
        "--model",
        default="s",
        metavar="MODEL",
        help="s, m or l (light detectors), retinanet or faster-rcnn (default: s)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        help="let the config train for about this time on this machine (default: 5); "
        "--minutes of ghostdet train ends a run before its schedule does",
    )
    length.add_argument(
        "--epochs", type=float, help="its length in passes over the images instead"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the images held out, if none are yet"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.analysis.data_picture import draw_data
    from ghostdet.apis.init import init_project

    cfg, said, warnings = init_project(**vars(args))
    print("\n".join(said))
    for warning in warnings:
        print(f"warning: {warning}")
    picture = draw_data(cfg, cfg.filename.removesuffix(".py") + ".png")
    print(f"{picture}: training images as the network sees them. Look at the labels.\n")
    print(f"Next: ghostdet train {shlex.quote(cfg.filename)}")


if __name__ == "__main__":
    _cli.run(main)
