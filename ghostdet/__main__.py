"""Run the command ``ghostdet``, by ``python -m ghostdet``."""

from ghostdet_command import main

main()
