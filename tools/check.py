"""Check what a training run needs: python tools/check.py CONFIG"""

import argparse
import sys

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Check what a training run needs; exit code 1 where it would fail"
    )
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--full",
        action="store_true",
        help="read all images, on all cores (default: 200 of each dataset)",
    )
    parser.add_argument("--work-dir", metavar="DIR", help="work directory of the run")
    _cli.add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from ghostdet.checks import check_run
    from ghostdet.checks.findings import findings_table
    from ghostdet.config import load_config

    cfg = load_config(args.config, args.work_dir, args.data_root, args.cfg_options)
    findings = check_run(cfg, full=args.full)
    print(findings_table(findings))
    sys.exit(any(finding.status == "fail" for finding in findings))


if __name__ == "__main__":
    _cli.run(main)
