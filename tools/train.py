"""Train a detector or classifier: python tools/train.py CONFIG"""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a detector or classifier")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="resume from a checkpoint, or from the latest in the work directory",
    )
    parser.add_argument(
        "--amp", action="store_true", help="train in mixed precision (GPU)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile: for long runs on a GPU",
    )
    parser.add_argument(
        "--no-auto-scale-lr",
        action="store_true",
        help="take the config's learning rate as it is, whatever the global batch",
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="start without the check of what the run needs, as tools/check.py makes",
    )
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="stop early after N evaluations without a better mAP or accuracy, or "
        "metric of the config's save_best",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="write a checkpoint and end after M minutes of training, for --resume; "
        "the schedule stays as long as the config says",
    )
    parser.add_argument(
        "--log-to",
        nargs="+",
        default=[],
        metavar="NAME",
        help="log to tensorboard, mlflow or wandb as well",
    )
    _cli.add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.apis import train
    from ghostdet.config import load_config
    from ghostdet.engine import log_to
    from ghostdet.engine.setup import add_hook

    cfg = load_config(
        args.config, args.work_dir, args.data_root, args.cfg_options, args.launcher
    )
    log_to(cfg, args.log_to)
    if args.compile:
        add_hook(cfg, "CompileHook")
    train(
        cfg,
        args.resume,
        args.amp,
        not args.no_auto_scale_lr,
        check=not args.no_check,
        patience=args.patience,
        minutes=args.minutes,
    )


if __name__ == "__main__":
    _cli.run(main)
