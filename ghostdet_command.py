"""The command ``ghostdet``, which runs tools: ``ghostdet train CONFIG``.

It is not in the package, because importing that takes seconds.
"""

import ast
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def tools_of(package: Path) -> Path:
    """Return the folder of a package's tools, in a wheel or a checkout."""
    in_wheel = package / ".mim" / "tools"
    return in_wheel if in_wheel.is_dir() else package.parent / "tools"


TOOLS = tools_of(Path(__file__).with_name("ghostdet"))


def main() -> None:
    """Run the tool of ghostdet or MMDetection that is named, or list the tools."""
    folder, program, given = TOOLS, "ghostdet", sys.argv[1:]
    if theirs := given[:1] == ["mmdet"]:
        if (spec := find_spec("mmdet")) is None:
            sys.exit("error: MMDetection is not installed; type pip install mmdet")
        folder = tools_of(Path(*spec.submodule_search_locations))
        program, given = "ghostdet mmdet", given[1:]
    paths = sorted(folder.rglob("[!_]*.py"))
    tools = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in paths
    }
    name = given[0].removesuffix(".py") if given else None
    if name not in tools:
        width = max(map(len, tools), default=0) + 2
        lines = [f"  {tool:{width}}{_summary(path)}" for tool, path in tools.items()]
        usage = "\n".join([f"usage: {program} TOOL ...", "", *lines, ""])
        if name in ("-h", "--help"):
            more = "" if theirs else "\nghostdet mmdet lists the tools of MMDetection."
            print(f"{usage}\n{program} TOOL --help lists the options of a tool.{more}")
            return
        sys.exit(usage if name is None else f"{usage}\n{program} has no tool {name!r}")
    sys.path[:0] = [str(tools[name].parent), str(TOOLS)]  # of what the tools share
    sys.argv = [f"{program} {name}", *given[1:]]
    if theirs:
        import _cli

        _cli.run(lambda: _run_theirs(tools[name]))
        return
    # runpy would overwrite the usage.
    code = compile(tools[name].read_text(encoding="utf-8"), tools[name], "exec")
    exec(code, {"__name__": "__main__", "__file__": str(tools[name])})


def _run_theirs(path: Path) -> None:
    """Run a tool of MMDetection with our operators, and the checkpoints of MMEngine."""
    import torch

    from ghostdet.errors import UserError
    from ghostdet.weights.checkpoint import SAFE_GLOBALS

    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as error:
        text = f"this tool needs {error.name}; type pip install {error.name}"
        raise UserError(text) from error


def _summary(path: Path) -> str:
    """Read what a tool does from the first line of its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition(":")[0].partition("\n")[0]


if __name__ == "__main__":
    main()
