"""Evaluate a detector or classifier: python tools/test.py CONFIG CHECKPOINT"""

import argparse
import os

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate a detector or classifier")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "checkpoint",
        nargs="?",
        help="checkpoint trained with that config, or what it was exported to "
        "(default: the last one in its work directory)",
    )
    parser.add_argument(
        "--out", metavar="FILE.pkl", help="file for the predictions, as MMDetection's"
    )
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="folder for a page that shows what the detector gets wrong; for it, "
        "CHECKPOINT may be a .json file of COCO results",
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
    return parser.parse_intermixed_args()  # a checkpoint may follow options


def main() -> None:
    args = parse_args()
    from ghostdet.apis import test
    from ghostdet.apis.model import latest_checkpoint
    from ghostdet.config import load_config, require_detector
    from ghostdet.utils.files import check_writable

    cfg = load_config(
        args.config, args.work_dir, args.data_root, args.cfg_options, args.launcher
    )
    results = checkpoint = args.checkpoint or latest_checkpoint(cfg)
    if args.report is None or not results.endswith(".json"):
        prefix = None
        if args.report is not None:
            require_detector(cfg, "--report")
            check_writable(args.report, "--report")
            prefix = os.path.join(args.report, "results")
        options = args.out, args.show_dir, args.amp, args.tta
        test(cfg, checkpoint, *options, prefix)
        results = f"{prefix}.bbox.json"
    if args.report is not None:
        from ghostdet.analysis.report_page import write_report

        print(f"report: {write_report(cfg, results, args.report)}")


if __name__ == "__main__":
    _cli.run(main)
