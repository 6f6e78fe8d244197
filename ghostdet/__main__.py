"""The command ``ghostdet``, which runs the tools: ``ghostdet train CONFIG``."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
IN_WHEEL, IN_CHECKOUT = PACKAGE / ".mim" / "tools", PACKAGE.parent / "tools"
TOOLS = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT


def main() -> None:
    """Run the tool that the first argument names, or list the tools."""
    tools = {path.stem: path for path in sorted(TOOLS.glob("[!_]*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name not in tools:
        lines = [f"  {tool:14}{_summary(path)}" for tool, path in tools.items()]
        usage = "\n".join(["usage: ghostdet TOOL ...", "", *lines, ""])
        if name in ("-h", "--help"):
            print(usage + "\nghostdet TOOL --help lists the options of a tool.")
            return
        sys.exit(usage if name is None else f"{usage}\nghostdet has no tool {name!r}")
    sys.path.insert(0, str(TOOLS))  # as for a script: tools import what they share
    sys.argv[:2] = [f"ghostdet {name}"]  # for its usage, which runpy would overwrite
    code = compile(tools[name].read_text(encoding="utf-8"), tools[name], "exec")
    exec(code, {"__name__": "__main__", "__file__": str(tools[name])})


def _summary(path: Path) -> str:
    """Read what a tool does from the first line of its docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition(":")[0]


if __name__ == "__main__":
    main()
