"""Errors that the user can correct."""

from __future__ import annotations


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
        """The message without a DataLoader worker's traceback.

        ``torch._utils.ExceptionWrapper`` puts the worker's traceback into the message.
        The message itself follows the last line that names this class.
        """
        message = str(self)
        if not message.startswith("Caught "):
            return message
        cls = type(self)
        heading = f"\n{cls.__module__}.{cls.__qualname__}: "
        return message.rpartition(heading)[2].rstrip("\n")


class ConfigError(UserError, ValueError):
    """An argument of a component that cannot be used.

    Also a ``ValueError``, which a caller in Python expects.
    """
