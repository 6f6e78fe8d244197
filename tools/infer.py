"""Detect objects in pictures, or classify these: python tools/infer.py IMAGES ..."""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Detect objects in pictures, or classify these"
    )
    parser.add_argument("images", help="an image, or a folder of images")
    parser.add_argument(
        "--config",
        help="config file; published weights have theirs beside them",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="checkpoint trained with that config, or what a detector was exported to",
    )
    parser.add_argument(
        "--out", default="outputs", metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--score-thr",
        type=float,
        help="lowest score of a detection that is drawn; results.json holds all "
        "(default: 0.3)",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="compute in mixed precision: fp16 on a GPU, bf16 on a CPU",
    )
    _cli.add_config_arguments(parser)
    args = parser.parse_args()
    if args.config is None and not args.checkpoint.endswith(".safetensors"):
        parser.error("--config is needed for all but published weights, .safetensors")
    return args


def main() -> None:
    args = parse_args()
    from ghostdet.apis import infer
    from ghostdet.config import load_config

    cfg = load_config(
        args.config or args.checkpoint,
        data_root=args.data_root,
        cfg_options=args.cfg_options,
    )
    infer(args.images, cfg, args.checkpoint, args.out, args.score_thr, args.amp)


if __name__ == "__main__":
    _cli.run(main)
