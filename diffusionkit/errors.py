"""The errors that a user of the commands is meant to read."""


class UserError(ValueError):
    """Something the user can put right: one clear sentence that names the file, key or record and what would be right.

    The commands print the sentence without a traceback and exit with status 2.
    """


class TrainingStopped(RuntimeError):
    """Training cannot go on, such as after a loss that is not finite; what was saved before stays as it is.

    The commands print the sentence without a traceback and exit with status 1.
    """
