"""Results of checks, and a table of them for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ghostdet.errors import UserError, printable


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        check: Name of the check, such as ``'train images'``.
        status: ``'pass'``; ``'warn'`` if a run continues and may not be the intended
            one; ``'fail'`` if it would stop or learn nothing.
        text: Description of the result.
        remedy: What to type next, if something is wrong.
    """

    check: str
    status: str
    text: str
    remedy: str = ""

    @classmethod
    def of_error(cls, check: str, error: UserError) -> Finding:
        """Return a failure with an error's message."""
        return cls(check, "fail", error.text)

    def error(self) -> UserError:
        """Return an error with the finding's text and remedy."""
        separator = "\n" if "\n" in self.text else ". "
        return UserError(separator.join(filter(None, (self.text, self.remedy))))


def findings_table(findings: Sequence[Finding], width: int | None = None) -> str:
    """Lay out findings for a terminal, and count them in the last line.

    Args:
        findings: The findings, in their order in the table.
        width: Columns of the terminal; by default the current terminal's.

    Returns:
        The table, with each remedy below its finding.

    Example:
        >>> print(findings_table([
        ...     Finding('train images', 'pass', '205 images are there'),
        ...     Finding('work dir', 'fail', "'/x' cannot be written",
        ...             'give another folder with --work-dir')], width=60))
        train images  pass  205 images are there
        work dir      FAIL  '/x' cannot be written
                            -> give another folder with --work-dir
        <BLANKLINE>
        1 failure, 0 warnings, 1 passed
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    column = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        status = finding.status if finding.status == "pass" else finding.status.upper()
        lines += _wrap(finding.text, f"{finding.check:<{column}}  {status}  ", width)
        if finding.remedy:
            lines += _wrap(finding.remedy, " " * (column + 8) + "-> ", width)
    counts = Counter(finding.status for finding in findings)
    numbers = [
        f"{counts[status]} {word}{'s' * (counts[status] != 1)}"
        for status, word in (("fail", "failure"), ("warn", "warning"))
    ]
    return "\n".join([*lines, "", ", ".join([*numbers, f"{counts['pass']} passed"])])


def _wrap(text: str, start: str, width: int) -> list[str]:
    """Wrap each line of a text after a start, and keep commands and paths intact."""
    indent = " " * len(start)
    lines: list[str] = []
    for line in printable(text).splitlines():
        lines += textwrap.wrap(
            line,
            max(width, len(start) + 30),
            initial_indent=indent if lines else start,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
