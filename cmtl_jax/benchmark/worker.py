"""What a side's process runs: python -m cmtl_jax.benchmark.worker ours|torch.

Reads one JSON object a line on standard input, answers one a line on standard output.
"""

import time

_BEGAN = time.perf_counter()

import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

_MODULES = {"ours": "cmtl_jax.benchmark.ours", "torch": "cmtl_jax.benchmark.baseline"}


def memory() -> dict[str, int]:
    """Bytes of this process that are resident, and the most that were at a time (Linux; else 0).

    Not getrusage: its maximum counts what the parent process held when it forked.
    """
    try:
        with open("/proc/self/status") as file:
            kib = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", file.read()))
    except OSError:
        kib = {}
    return {
        "resident_bytes": int(kib.get("VmRSS", 0)) * 1024,
        "peak_bytes": int(kib.get("VmHWM", 0)) * 1024,
    }


class _Worker:
    def __init__(self, framework: str):
        module = importlib.import_module(_MODULES[framework])
        module.start()
        self._prepare = module.TASKS
        self._tasks: dict[str, Any] = {}
        self._imported = {
            "imported_seconds": time.perf_counter() - _BEGAN,
            "imported_bytes": memory()["resident_bytes"],
        }

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        command, name = message["command"], message.get("name")
        if command == "memory":
            return memory()
        began = time.perf_counter()
        if command == "prepare":
            self._tasks[name] = self._prepare[message["task"]](**message["spec"])
            return self._imported | {"prepared_seconds": time.perf_counter() - began}
        task = self._tasks[name]
        if command == "result":
            return task.result()
        for _ in range(message["times"]):
            task.run()
        task.wait()
        return {"seconds": time.perf_counter() - began}


def main(framework: str) -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints
    worker = _Worker(framework)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001  told to the other end, which decides
            text = " ".join(str(error).split())[:500]
            answer = {"error": f"{framework}: {type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
