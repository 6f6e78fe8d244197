"""Inspect, verify, convert, widen and publish weights: tools/weights.py --help"""

import argparse

import _cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="GhostNet weights")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str, writes: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "checkpoint",
            help="a .pth, .safetensors or .pdparams file, hf-hub:OWNER/NAME or an "
            "address; #sha256=... may follow",
        )
        if writes:
            sub.add_argument("out", help="the .safetensors file to write")
        return sub

    add("inspect", "say what a file of weights is")
    add("verify", "see that weights are complete")
    add("convert", "write weights under the official names", writes=True)
    widen = add("widen", "widen a GhostNet, keeping its outputs", writes=True)
    widen.add_argument("--widen-factor", type=float, required=True)
    widen.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="on repeated channels, as a share of the weights' deviation (default: 0)",
    )
    widen.add_argument("--seed", type=int, default=0, help="of the noise")
    publish = add(
        "publish", "write a model's weights, with config and classes", writes=True
    )
    publish.add_argument("--config", required=True, help="config it was trained with")
    _cli.add_config_options(publish)
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    command = args.pop("command")
    if command == "publish":
        from ghostdet.config import load_config
        from ghostdet.weights.publish import publish

        cfg = load_config(args["config"], cfg_options=args["cfg_options"])
        publish(args["checkpoint"], args["out"], cfg)
        return
    from ghostdet.weights import convert

    getattr(convert, command)(**args)


if __name__ == "__main__":
    _cli.run(main)
