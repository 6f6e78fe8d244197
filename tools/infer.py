"""Detect objects in pictures, or classify these: python tools/infer.py IMAGES ..."""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Detect objects in pictures, or classify these"
    )
    parser.add_argument("images", help="an image, a folder of images, or a video")
    parser.add_argument(
        "--config",
        help="config file; published weights have theirs beside them",
    )
    parser.add_argument(
        "--checkpoint",
        help="checkpoint trained with that config, or an exported detector "
        "(default: the last one in the config's work directory)",
    )
    parser.add_argument(
        "--out", default="outputs", metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "--score-thr",
        type=_score,
        default=0.3,
        metavar="SCORE",
        help="lowest score of a detection that is drawn, 0.3 by default, or the "
        "figures.json of `test --report` with one for each class; results hold all",
    )
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PX",
        help="detect in overlapping tiles of this size, for large photographs",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="compute in mixed precision: fp16 on a GPU, bf16 on a CPU",
    )
    _cli.add_config_arguments(parser)
    args = parser.parse_args()
    if args.config is None and not (args.checkpoint or "").endswith(".safetensors"):
        parser.error("--config is needed for all but published weights, .safetensors")
    return args


def _score(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def main() -> None:
    args = parse_args()
    from ghostdet.apis import infer
    from ghostdet.apis.model import latest_checkpoint
    from ghostdet.config import load_config

    cfg = load_config(
        args.config or args.checkpoint,
        data_root=args.data_root,
        cfg_options=args.cfg_options,
    )
    options = args.out, args.score_thr, args.amp, args.tile
    infer(args.images, cfg, args.checkpoint or latest_checkpoint(cfg), *options)


if __name__ == "__main__":
    _cli.run(main)
