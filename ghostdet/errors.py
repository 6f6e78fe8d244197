"""Errors that the user can correct."""

from __future__ import annotations

import re

_LONGEST = 1000  # characters of a word, which may be a path


def printable(text: str) -> str:
    r"""Escape characters that a terminal would obey, and shorten endless words.

    Names in a dataset may hold anything.

    Example:
        >>> printable("no file \x1b[31ma.jpg")
        'no file \\x1b[31ma.jpg'
    """
    text = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
        for c in text
    )
    return re.sub(rf"\S{{{_LONGEST},}}", lambda word: f"{word[0][:100]}...", text)


class UserError(Exception):
    """A mistake in the command, the configuration or the data.

    The message names what was given, what was expected and what to type next.
    A command line prints :attr:`text` without a traceback and exits with 1::

        except UserError as err:
            sys.exit(f'error: {err.text}')

    The class takes one string: PyTorch's DataLoader rebuilds an exception of a worker
    as ``type(err)(text)``, and by keyword if the class has an attribute ``message``.

    Args:
        message: What was given, what was expected, what to type next.

    Example:
        >>> from ghostdet.errors import UserError
        >>> UserError('no file x.json; type --data-root DIR').text
        'no file x.json; type --data-root DIR'
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def text(self) -> str:
        """The message, :func:`printable`, without a DataLoader worker's traceback.

        ``torch._utils.ExceptionWrapper`` puts the worker's traceback into the message.
        The message itself follows the last line that names this class.
        """
        message = str(self)
        if not message.startswith("Caught "):
            return printable(message)
        cls = type(self)
        heading = f"\n{cls.__module__}.{cls.__qualname__}: "
        return printable(message.rpartition(heading)[2].rstrip("\n"))


class ConfigError(UserError, ValueError):
    """An argument of a component that cannot be used.

    Also a ``ValueError``, which a caller in Python expects.
    """
