"""Results of checks, and a table of them for a terminal."""

from __future__ import annotations

import shutil
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ghostdet.config import component_of, reason
from ghostdet.errors import UserError
from ghostdet.utils.text import wrap


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
    def of_error(cls, check: str, error: Exception) -> Finding:
        """Describe an error, and where it was raised if it is not for users."""
        if isinstance(error, UserError):
            return cls(check, "fail", error.text)
        place = traceback.extract_tb(error.__traceback__)[-1]
        names = component_of(error), type(error).__name__, reason(error)
        text = ": ".join(filter(None, dict.fromkeys(names)))
        remedy = "ghostdet train --no-check shows the traceback"
        return cls(check, "fail", f"{text} ({place.filename}:{place.lineno})", remedy)

    def error(self) -> UserError:
        """Return an error with the finding's text and remedy."""
        separator = "\n" if "\n" in self.text else ". "
        return UserError(separator.join(filter(None, (self.text, self.remedy))))


def findings_table(findings: Sequence[Finding], width: int | None = None) -> str:
    """Lay out findings for a terminal of ``width`` columns, and count them at the end.

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
        lines += wrap(finding.text, f"{finding.check:<{column}}  {status}  ", width)
        if finding.remedy:
            lines += wrap(finding.remedy, " " * (column + 8) + "-> ", width)
    counts = Counter(finding.status for finding in findings)
    failures, warnings = counts["fail"], counts["warn"]
    last = f"{failures} failure{'s' * (failures != 1)}, "
    last += f"{warnings} warning{'s' * (warnings != 1)}, {counts['pass']} passed"
    return "\n".join([*lines, "", last])
