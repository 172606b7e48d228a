"""The one exception that is meant for the person at the terminal."""


class UserError(Exception):
    """Something the user can mend: bad input, a missing file, an impossible setting.

    The message is one line that names the file, the value and the remedy. The command line prints it as
    `a2f: error: <message>` without a traceback and exits with code 2; from Python it is an ordinary exception.
    """
