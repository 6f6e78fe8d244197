"""Arguments and error messages that tools share.

A tool imports ``ghostdet`` when its arguments are parsed: that takes seconds, which
neither ``--help`` nor a mistyped option should. For the same reason this file is not in
the package.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what changes a config: arguments of :func:`~ghostdet.config.load_config`."""
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the dataset, in place of the one the config names",
    )
    add_config_options(parser)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options`` alone."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        type=_assignment,
        action=ConfigOptions,
        metavar="KEY=VALUE",
        help="override keys of the config, such as train_dataloader.batch_size=4; "
        'lists as "[a,b]"',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those arguments, and where and how a run takes place."""
    add_config_arguments(parser)
    parser.add_argument("--work-dir", metavar="DIR", help="where the run writes")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how the processes of a distributed run were started",
    )
    # torchrun's predecessor passes this one.
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS
    )


class ConfigOptions(argparse.Action):
    """MMEngine's ``DictAction``, imported where it is used."""

    def __call__(self, *arguments) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(*arguments)


def _assignment(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form KEY=VALUE, without spaces"
        )
    return text


def run(main: Callable[[], object]) -> None:
    """Run a tool: what the user can mend ends in one message and exit code 1."""
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell says of SIGPIPE
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:  # PyTorch raises another error while it saves
            if isinstance(cause, KeyboardInterrupt):
                _interrupted()
            cause = cause.__context__
        try:
            from ghostdet.errors import UserError
        except RuntimeError as failed:  # what ghostdet stands on is not installed
            sys.exit(f"error: {failed}")
        if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun names it as the cause
            from torch.distributed.elastic.multiprocessing.errors import (
                get_error_handler,
            )

            get_error_handler().record_exception(error)
        if not isinstance(error, UserError):
            raise
        print(f"error: {error.text}", file=sys.stderr)
        sys.exit(1)


def _interrupted() -> None:
    print("interrupted", file=sys.stderr)
    sys.exit(130)  # as a shell says of SIGINT
