"""Exceptions for errors that the user can fix, and functions for messages."""

import errno
import re
from collections.abc import Sequence


class UserError(Exception):
    """An error the user can fix: invalid input, a missing file or an impossible setting.

    The message is a single line that names the file or value at fault and the remedy. The command line prints it as
    `a2f: error: <message>`, without a traceback, and exits with `exit_code`. In Python it is an ordinary exception.

    Attributes:
      parameter: the name of the parameter that remedies the error, if there is one. The command line appends its flag.
      exit_code: 2, or 75 (`EX_TEMPFAIL`) if the same command may succeed later.
    """

    exit_code = 2

    def __init__(self, message: str, *, parameter: str | None = None):
        super().__init__(message)
        self.parameter = parameter


class StorageError(UserError):
    """Storage failed for a reason that may pass, such as a network that does not answer."""


_PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH)
# What is missing, or refers to a place before the beginning or far beyond the end of a file.
_CONTENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EOVERFLOW)


def may_pass(error: OSError) -> bool:
    """Returns whether an error of a file system may be gone soon, such as those of one on a network."""
    return error.errno in _PASSING


def system_failure(error: BaseException) -> str | None:
    """Returns why the operating system failed to read a file, or None if the file is missing or damaged.

    Errors such as too many open files, a missing permission, or a network that does not answer say nothing about the
    content of a file. So it must neither be called damaged nor be replaced by another one.

    Args:
      error: an exception raised while a file was read. Libraries raise many kinds for damaged content, including
        `OSError` without an error number.
    """
    if not isinstance(error, OSError) or error.errno in _CONTENT:
        return None
    return error.strerror


def shorten(names: Sequence[str], most: int = 10, separator: str = ", ") -> str:
    """Formats a list of names for a message.

    Args:
      names: the names.
      most: how many of them to include.
      separator: what to write between them.

    Returns:
      The first names and the number of the others, such as `"a, b and 3 more"`.
    """
    return separator.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def count_of(number: int, noun: str) -> str:
    """Formats a number of things for a message.

    Args:
      number: how many there are.
      noun: what they are, in the singular; its plural ends in -s.

    Returns:
      For example `"1 image"` or `"2 images"`.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def escape(text: str) -> str:
    r"""Replaces control characters, as file names and metadata may contain them, by escape sequences such as `\n`.

    Args:
      text: a message for the terminal.

    Returns:
      The message in one line, without characters that control the terminal.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: match[0].encode("unicode_escape").decode(), text)
