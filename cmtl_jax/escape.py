"""Names of files made safe for where they are written: a terminal, a table."""

import re

# Control characters move the cursor or end the line; separators and directions of writing make a
# terminal show one name as another. All else, spaces and marks of every script too, stays.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # and the full-width forms


def printable(text: str) -> str:
    """The text with control characters as \\n, \\x1b, \\u202e: one line that a terminal only shows.

    Bytes of a name that are no text (surrogates of `os.fsdecode`) stay what they are.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def table_cell(path: str) -> str:
    """A path as a cell of a CSV file that no spreadsheet takes for a formula.

    `=1+1.jpg` becomes `./=1+1.jpg`, which is the same file.
    """
    return f"./{path}" if path.startswith(tuple(_FORMULA)) else path
