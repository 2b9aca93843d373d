"""How much a server takes on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server; whatever is beyond them is refused.

    Attributes:
        upload_bytes: size of a picture's file.
        pixels: a picture that declares more is not decoded.
        seconds: from a request's first byte to its answer.
        waiting: requests that wait while one is counted.
    """

    upload_bytes: int = 32 * 2**20
    pixels: int = 40_000_000
    seconds: float = 300.0
    waiting: int = 8
