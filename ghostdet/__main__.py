"""Run a tool from anywhere: python -m ghostdet train CONFIG."""

import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent
# In a wheel, or in a checkout.
TOOLS = next(p for p in (PACKAGE / ".mim/tools", PACKAGE.parent / "tools") if p.is_dir())


def main() -> None:
    """Run the tool that the first argument names."""
    names = sorted(path.stem for path in TOOLS.glob("*.py"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"usage: python -m ghostdet {{{','.join(names)}}} ...")
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m ghostdet {name}"
    runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
