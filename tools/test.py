"""Evaluate a detector or classifier: python tools/test.py CONFIG CHECKPOINT"""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a detector or classifier")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "checkpoint",
        help="checkpoint trained with that config, or what it was exported to",
    )
    parser.add_argument(
        "--out", metavar="FILE.pkl", help="file for the predictions, as MMDetection's"
    )
    parser.add_argument(
        "--show-dir", metavar="DIR", help="folder for pictures of the detections"
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="compute in mixed precision: fp16 on a GPU, bf16 on a CPU",
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    _cli.add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.apis import test
    from ghostdet.config import load_config

    cfg = load_config(
        args.config, args.work_dir, args.data_root, args.cfg_options, args.launcher
    )
    test(cfg, args.checkpoint, args.out, args.show_dir, args.amp, args.tta)


if __name__ == "__main__":
    _cli.run(main)
