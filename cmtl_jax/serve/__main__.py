"""A page that counts people in pictures: python -m cmtl_jax.serve [--weights=W [W ...]]."""

import argparse
import importlib.util
import ipaddress
import os
import signal
import socket
import sys
import typing

from cmtl_jax import DEFAULT_WEIGHTS, console
from cmtl_jax.errors import UserError
from cmtl_jax.pictures import MAX_PIXELS
from cmtl_jax.serve.limits import Limits

if typing.TYPE_CHECKING:
    import uvicorn

_NEEDED = ("fastapi", "uvicorn", "python_multipart")
_CONNECTIONS = 100  # open at once; more are refused
_GRACE = 5  # seconds for requests under way when the server stops


def main(argv: list[str] | None = None) -> int:
    """Serves until Ctrl-C or SIGTERM; returns the exit status."""
    return console.main(lambda: _serve(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = console.Parser(
        prog="python -m cmtl_jax.serve",
        description="A page on this machine that counts people in pictures, and an HTTP endpoint.",
    )
    parser.add_argument(
        "--weights", nargs="+", metavar="W",
        help="work folders of training runs, files of weights, or names of those that come along, "
        "to choose from; default: all that come along",
    )  # fmt: skip
    parser.add_argument("--checkpoint", default="best", help="best (default), latest or a step")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; by default, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8765, help="default 8765; 0: any that is free")
    parser.add_argument(
        "--allow-host", nargs="+", default=[], metavar="NAME",
        help="names of this machine in addresses of the page, beside localhost and numbers",
    )  # fmt: skip
    parser.add_argument(
        "--max-upload", type=float, default=limits.upload_bytes / 2**20, metavar="MIB",
        help="largest file of a picture, default %(default)g MiB",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=int, default=limits.pixels, metavar="N",
        help="pictures that declare more are not decoded, default %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=float, default=limits.seconds, metavar="SECONDS",
        help="for a request, waiting included, default %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=int, default=limits.waiting, metavar="N",
        help="pictures that wait while one is counted, default %(default)s",
    )  # fmt: skip
    return parser


def _limits(arguments: argparse.Namespace) -> Limits:
    for name, low, high in (
        ("max_upload", 0.001, 2048),
        ("max_pixels", 64 * 64, MAX_PIXELS),
        ("timeout", 1, 86_400),
        ("queue", 0, 1000),
        ("port", 0, 65_535),
    ):
        value = getattr(arguments, name)
        if not low <= value <= high:
            option = name.replace("_", "-")
            raise UserError(f"--{option} must be from {low:g} to {high:g}, not {value:g}")
    return Limits(
        upload_bytes=round(arguments.max_upload * 2**20),
        pixels=arguments.max_pixels,
        seconds=arguments.timeout,
        waiting=arguments.queue,
    )


def _serve(arguments: argparse.Namespace) -> int:
    limits = _limits(arguments)
    missing = [
        name.replace("_", "-") for name in _NEEDED if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UserError(
            f"the page needs {', '.join(missing)}; install with pip install 'cmtl_jax[serve]', or "
            "in a clone with pip install -r requirements-serve.txt"
        )
    with _listen(arguments.host, arguments.port) as listener:  # before the weights take time
        from cmtl_jax import compilation_cache
        from cmtl_jax.prediction import counter
        from cmtl_jax.serve import app as app_lib

        compilation_cache.enable()
        paths = _names(arguments.weights or _shipped())
        counters = {
            name: counter.load(path, arguments.checkpoint) for name, path in paths.items()
        }
        app = app_lib.create(counters, limits, [arguments.host, *arguments.allow_host])
        # uvicorn stops on these signals, and then raises them once more.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        listener.listen()
        _announce(listener, list(paths))
        server(app).run(sockets=[listener])
    print("stopped", flush=True)
    if app.state.service.busy:  # a count can take minutes, and nobody waits for it
        sys.stderr.flush()
        os._exit(0)
    return 0


def server(app) -> "uvicorn.Server":
    """The server of an application, to run on sockets that listen."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets=None) -> None:
            app.state.service.close()  # else it would wait for what is counted
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None,
        access_log=False, proxy_headers=False, server_header=False,
        limit_concurrency=_CONNECTIONS, timeout_graceful_shutdown=_GRACE,
    )  # fmt: skip
    return Server(config)


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address.

    Raises:
        UserError: the port is in use, or the address is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host={host} is no address ({console.one_line(error)})") from error
    try:
        if os.name == "posix":  # elsewhere this would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen at port {port} of {host} ({error.strerror or error}); choose another "
            "with --port (0: any that is free)"
        ) from error
    return listener


def _shipped() -> list[str]:
    """What the weights that come along are called, the default first."""
    from cmtl_jax import trained_model

    return [DEFAULT_WEIGHTS, *trained_model.shipped()]


def _names(paths: list[str]) -> dict[str, str]:
    """What people call the weights, which says nothing of where they lie, to their paths."""
    from cmtl_jax import trained_model

    names: dict[str, str] = {}
    for path in paths:
        stem = trained_model.short_name(path)
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names[name] = path
    return names


def _announce(listener: socket.socket, weights: list[str]) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(
        f"counting with {', '.join(weights)} at http://{shown}:{port}/ (its endpoints: /docs); "
        "stop with Ctrl-C",
        flush=True,
    )
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        print(
            "warning: every machine that reaches this one can use the page; there is no password",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
