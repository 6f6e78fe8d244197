"""Draw what a layer makes of an image: python tools/visualize.py pairs C F IMAGE"""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw what a layer makes of an image")
    pictures = parser.add_subparsers(dest="picture", required=True)
    for name, text in (
        ("pairs", "all maps of a layer, the most similar ones framed in one colour"),
        ("ghosts", "which ghost map of a Ghost module came from which intrinsic one"),
    ):
        sub = pictures.add_parser(name, help=text, description=f"Draw {text}")
        sub.add_argument("config", help="config of a detector or a classifier")
        sub.add_argument("checkpoint", help="checkpoint trained with that config")
        sub.add_argument("image", help="image to show to the network")
        sub.add_argument(
            "--layer",
            metavar="NAME",
            help="the layer, such as backbone.blocks.1.0.ghost1 (default: the second "
            "Ghost module)",
        )
        sub.add_argument(
            "--out", metavar="FILE", help="PNG to write (default: in outputs/)"
        )
        _cli.add_config_options(sub)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.analysis import visualize
    from ghostdet.config import load_config

    cfg = load_config(args.config, cfg_options=args.cfg_options)
    visualize(args.picture, cfg, args.checkpoint, args.image, args.layer, args.out)


if __name__ == "__main__":
    _cli.run(main)
