"""Run a tool from anywhere: python -m ghostdet train CONFIG."""

import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
IN_WHEEL, IN_CHECKOUT = PACKAGE / ".mim" / "tools", PACKAGE.parent / "tools"
TOOLS = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT


def main() -> None:
    """Run the tool that the first argument names."""
    names = sorted(path.stem for path in TOOLS.glob("[!_]*.py"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        usage = f"usage: python -m ghostdet {{{','.join(names)}}} ..."
        if sys.argv[1:] in (["-h"], ["--help"]):
            print(usage)
            return
        sys.exit(usage)
    sys.path.insert(0, str(TOOLS))  # as for a script: tools import what they share
    runpy.run_path(str(TOOLS / f"{sys.argv.pop(1)}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
