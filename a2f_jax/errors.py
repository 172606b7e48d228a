"""The exception for errors that the user can fix."""


class UserError(Exception):
    """An error the user can fix: invalid input, a missing file or an impossible setting.

    The message is a single line that names the file or value at fault and the remedy. The command line prints it as
    `a2f: error: <message>`, without a traceback, and exits with code 2. In Python it is an ordinary exception.

    Attributes:
      parameter: the name of the parameter that remedies the error, if there is one. The command line appends its flag.
    """

    def __init__(self, message: str, *, parameter: str | None = None):
        super().__init__(message)
        self.parameter = parameter
