"""Export a detector: python tools/export.py CONFIG CHECKPOINT --format onnx"""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Export a detector")
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint trained with that config")
    parser.add_argument(
        "--format", choices=["onnx", "openvino"], required=True, help="what will run it"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise to 8 bits, calibrated on the training set; prints the AP before "
        "and after",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=100,
        metavar="N",
        help="how many images to calibrate on (default: 100)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="file to write (default: in work_dirs/CONFIG/FORMAT/)",
    )
    _cli.add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.config import load_config
    from ghostdet.export.export_detector import export

    cfg = load_config(
        args.config, data_root=args.data_root, cfg_options=args.cfg_options
    )
    export(
        cfg,
        args.checkpoint,
        args.format,
        args.int8,
        args.out,
        args.calibration_images,
    )


if __name__ == "__main__":
    _cli.run(main)
