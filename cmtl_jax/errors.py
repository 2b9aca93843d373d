"""Errors that are meant for people."""


class UserError(Exception):
    """Bad input: the message says in one line which file, what is wrong and what to do.

    Command lines print the message on standard error and exit with status 1, without a traceback.
    """
