"""Results of checks, and a table of them for a terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ghostdet.config import component_of
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
    def of_error(cls, check: str, error: Exception, remedy: str = "") -> Finding:
        """Describe an error, and where it was raised if it is not for users."""
        if isinstance(error, UserError):
            return cls(check, "fail", error.text)
        place = traceback.extract_tb(error.__traceback__)[-1]
        names = component_of(error), type(error).__name__, reason(error)
        text = ": ".join(filter(None, dict.fromkeys(names)))
        remedy = remedy or "ghostdet train --no-check shows the traceback"
        return cls(check, "fail", f"{text} ({place.filename}:{place.lineno})", remedy)

    def error(self) -> UserError:
        """Return an error with the finding's text and remedy."""
        separator = "\n" if "\n" in self.text else ". "
        return UserError(separator.join(filter(None, (self.text, self.remedy))))


def reason(error: BaseException) -> str:
    """Give an error's message, without the advice that registries add."""
    text = str(error.args[0]) if error.args else type(error).__name__
    text = str(error) if isinstance(error, OSError) else text
    if unknown := re.match(r"\S+ is not in the .+? registry", text):
        return unknown.group()
    keyed = isinstance(error, KeyError) and " " not in text
    return f"no key {text!r}" if keyed else text[:300]


def findings_table(findings: Sequence[Finding], width: int | None = None) -> str:
    """Lay out findings for a terminal, and count them in the last line.

    Args:
        findings: The findings, in their order in the table.
        width: Number of columns; by default the terminal's.

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
