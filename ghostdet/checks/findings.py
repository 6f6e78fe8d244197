"""What checks find, and how a terminal shows it."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ghostdet.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and how it stands.

    Args:
        check: What was checked, such as ``'train images'``.
        status: ``'pass'``; ``'warn'`` where a run goes on and may not be what was
            meant; ``'fail'`` where it would stop or come to nothing.
        text: What was found.
        remedy: What to type next, where there is something to mend.
    """

    check: str
    status: str
    text: str
    remedy: str = ""

    @classmethod
    def of_error(cls, check: str, error: UserError) -> Finding:
        """The finding that an error states.

        Messages end with what to type: a last line, or what follows a semicolon.
        """
        if "\n" in error.text:
            text, _, remedy = error.text.rpartition("\n")
        else:
            text, _, remedy = error.text.partition("; ")
        return cls(check, "fail", text, remedy)

    def error(self) -> UserError:
        """The error that states the finding."""
        separator = ". "
        if "\n" in self.text:
            separator = "\n"
        elif self.remedy[:1].islower():
            separator = "; "
        return UserError(separator.join(filter(None, (self.text, self.remedy))))


def findings_table(findings: Sequence[Finding], width: int | None = None) -> str:
    """Lay out findings for a terminal, and count them in the last line.

    Args:
        findings: What was found, in the order to be shown.
        width: Columns of the terminal; by default those of the one at hand.

    Returns:
        The table; a remedy stands below the finding that needs it.

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
    """Wrap each line of a text behind a start; commands and paths stay whole."""
    indent = " " * len(start)
    lines: list[str] = []
    for line in text.splitlines():
        lines += textwrap.wrap(
            line,
            max(width, len(start) + 30),
            initial_indent=indent if lines else start,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines
