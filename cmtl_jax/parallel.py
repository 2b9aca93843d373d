"""How functions run on devices: jit over a sharded mesh, or pmap. Nothing else compiles.

Arrays of the state are replicated over all devices of all processes; batches are split along their
first axis. A process hands over its own part of a global batch, as NumPy arrays.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cmtl_jax import freed_memory
from cmtl_jax.errors import UserError
from cmtl_jax.kernels import library as kernels
from cmtl_jax.models import onednn

PyTree = Any

AXIS = "data"
_COMPILING = 2  # programs at a time, in the background; each takes one core and some memory


@functools.cache
def _quick_to_compile() -> dict[str, bool]:
    """Options of a program for whole pictures: half the time to compile it, none to run it.

    A CPU spends its time in the convolutions, which gain nothing from these fusions.
    """
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # this XLA has no such option any more
        return {}
    return options


def visible_devices() -> list[jax.Device]:
    """The devices of all processes.

    Raises:
        UserError: JAX was told to use some that it does not find.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA's packages
        told = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device (JAX_PLATFORMS={told!r}); unset JAX_PLATFORMS, or see "
            "python -m cmtl_jax.doctor"
        ) from error


class Parallel:
    """Compiles steps for all devices and moves arrays to and from them."""

    def __init__(
        self,
        kind: str = "jit",
        devices: list[jax.Device] | None = None,
        *,
        precision: str = "float32",
    ):
        """Kind is 'jit' or 'pmap'; devices default to all of all processes.

        Precision is that of convolutions and matrix products of float32 arrays: 'float32', or
        'tensorfloat32' (10 bits of mantissa), faster on GPUs that have it.
        """
        self.kind = kind
        self._precision = precision
        self.devices = list(devices or visible_devices())
        self._mesh = jax.make_mesh(
            (len(self.devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=self.devices
        )
        self.replicated = NamedSharding(self._mesh, PartitionSpec())
        self._split = NamedSharding(self._mesh, PartitionSpec(AXIS))

    @property
    def num_devices(self) -> int:
        return len(self.devices)

    @property
    def process_index(self) -> int:
        return jax.process_index()

    @property
    def process_count(self) -> int:
        return len({device.process_index for device in self.devices})

    @property
    def _local_devices(self) -> list[jax.Device]:
        return [d for d in self.devices if d.process_index == jax.process_index()]

    @property
    def _on_one_cpu(self) -> bool:
        """Whether a training step is one program for one CPU, which XLA need not split."""
        alone = self.kind == "pmap" or self.num_devices == 1
        return alone and self.devices[0].platform == "cpu"

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """How training steps are traced."""
        ours = self._on_one_cpu and kernels.available()
        with (
            jax.default_matmul_precision(self._precision),
            kernels.in_use(ours),
            onednn.in_use(self._on_one_cpu and not ours),
        ):
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """How evaluation steps are traced; each thread has settings of its own."""
        one_cpu = self.num_devices == 1 and self.devices[0].platform == "cpu"
        with jax.default_matmul_precision(self._precision), kernels.in_use(one_cpu):
            yield

    def round_up(self, batch_size: int) -> int:
        """The smallest batch of at least that size that divides over the devices."""
        return -(-batch_size // self.num_devices) * self.num_devices

    def initialise(self, function: Callable[[], PyTree]) -> PyTree:
        """The result of a function without arguments that runs once, replicated."""
        # On the CPU its program, drawing many tensors, takes far longer to optimise than to run.
        cpu = self.devices[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        return jax.jit(
            function,
            out_shardings=self.replicated,
            compiler_options=options if cpu else None,
        )()

    def once(self, function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
        """The result of a function of arguments that are the same everywhere, replicated."""
        with jax.default_matmul_precision(self._precision):
            return jax.jit(function, out_shardings=self.replicated)(*arguments)

    def replicate(self, tree: PyTree) -> PyTree:
        """Host arrays, the same in every process, or a step's state -> replicated global arrays."""
        local = set(self._local_devices)

        def put(x):
            if isinstance(x, jax.Array):
                if x.sharding == self.replicated:
                    return x
                if x.sharding.is_fully_replicated and x.sharding.addressable_devices == local:
                    # Every device has it already, as after pmap: nothing is copied.
                    shards = [shard.data for shard in x.addressable_shards]
                    return jax.make_array_from_single_device_arrays(
                        x.shape, self.replicated, shards
                    )
                x = x.addressable_data(0)
            host = np.asarray(x)
            return jax.make_array_from_callback(host.shape, self.replicated, lambda i: host[i])

        return jax.tree.map(put, tree)

    def train_step(
        self, step: Callable[..., tuple[PyTree, PyTree]], *constants: PyTree
    ) -> Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]:
        """Compiles step(state, batch, *constants, axis_name=...) -> (state, metrics).

        The compiled step takes a replicated state, which it may consume, and this process's part of
        the batch; the results are replicated. The arrays of the constants are the same at every
        call, arguments of the program and no part of it. Its `traces()` is the number of programs
        so far.
        """
        if self.kind == "pmap":
            return self._pmap_step(step, constants)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(self.replicated, self.replicated))
        constants = self.replicate(constants)
        programs: dict[tuple, jax.stages.Compiled] = {}

        def run(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
            arguments = (self.replicate(state), self.split(batch), *constants)
            leaves, structure = jax.tree.flatten(arguments[:2])
            key = (structure, *((x.shape, x.dtype) for x in leaves))
            if key not in programs:
                with self.training():
                    programs[key] = jitted.lower(*arguments).compile()
                freed_memory.give_back()  # before the step takes its own
            return programs[key](*arguments)

        run.traces = lambda: len(programs)
        return run

    def _pmap_step(self, step, constants):
        local = self._local_devices
        programs = 0

        def traced(state: PyTree, batch: PyTree, *constants: PyTree) -> tuple[PyTree, PyTree]:
            nonlocal programs
            programs += 1  # pmap keeps no count of its own; a body runs once a program
            return step(state, batch, *constants, axis_name=AXIS)

        compiled = jax.pmap(
            traced,
            axis_name=AXIS,
            in_axes=(None, 0, *(None for _ in constants)),
            out_axes=(None, None),
            devices=self.devices,
        )

        def run(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
            batch = jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)
            if self.process_count > 1:  # pmap takes this process's arrays, not global ones
                state = jax.tree.map(lambda x: x.addressable_data(0), state)
            with self.training():
                done = compiled(state, batch, *constants)
            return self.replicate(done)

        run.traces = lambda: programs
        return run

    def eval_step(
        self, function: Callable[[PyTree, PyTree], PyTree]
    ) -> Callable[[PyTree, PyTree], PyTree]:
        """Compiles function(params, batch) -> outputs with one entry an example.

        The compiled function takes replicated params and this process's part of the batch. Its
        `prepare(params, batches)` compiles, in the background and in their order, for batches of
        the shapes and types of these; a call waits for its own program alone. Its `traces()` is the
        number of programs so far.
        """
        cpu = self.devices[0].platform == "cpu"
        compiled = jax.jit(
            function,
            out_shardings=self._split,
            compiler_options=_quick_to_compile() if cpu else None,
        )
        prepared: dict[tuple, futures.Future] = {}

        def shapes(batch: PyTree) -> tuple:
            return tuple((x.shape, x.dtype) for x in jax.tree.leaves(batch))

        def program(params: PyTree, batch: PyTree) -> jax.stages.Compiled:
            with self.evaluating():
                return compiled.lower(params, batch).compile()

        def prepare(params: PyTree, batches: Iterable[PyTree]) -> None:
            params = jax.tree.map(lambda x: self._like(x, self.replicated), params)
            # Processes may wait for each other's compiling: all then go in the same order.
            pool = futures.ThreadPoolExecutor(_COMPILING if self.process_count == 1 else 1)
            for batch in batches:
                if shapes(batch) not in prepared:
                    split = jax.tree.map(
                        lambda x: self._like(x, self._split, self.process_count), batch
                    )
                    prepared[shapes(batch)] = pool.submit(program, params, split)
            pool.shutdown(wait=False)

        def run(params: PyTree, batch: PyTree) -> PyTree:
            if (ready := prepared.get(shapes(batch))) is not None:
                return ready.result()(self.replicate(params), self.split(batch))
            with self.evaluating():
                return compiled(params, self.split(batch))

        run.prepare = prepare
        run.traces = lambda: compiled._cache_size() + len(prepared)
        return run

    @staticmethod
    def _like(x: Any, sharding: NamedSharding, parts: int = 1) -> jax.ShapeDtypeStruct:
        """What stands for an array of which x is one of so many parts."""
        shape = (x.shape[0] * parts, *x.shape[1:]) if x.shape else ()
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)

    def split(self, batch: PyTree) -> PyTree:
        """This process's part of a global batch -> global arrays, split over all devices."""
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._split, x), batch)

    def local(self, outputs: PyTree) -> PyTree:
        """This process's examples of an eval step's outputs, as NumPy arrays."""

        def fetch(x: jax.Array) -> np.ndarray:
            shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            return np.concatenate([np.asarray(shard.data) for shard in shards])

        return jax.tree.map(fetch, outputs)

    def host(self, tree: PyTree) -> PyTree:
        """Replicated arrays as NumPy arrays."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Concatenates the float64 rows [n, k] of all processes, in the order of the processes.

        n may differ; every process gets the whole.
        """
        if self.process_count == 1:
            return rows
        # Transferred as bytes: device arrays would round float64 to float32.
        numbers = multihost_utils.process_allgather(np.array([len(rows)]))
        most = int(numbers.max())
        padded = np.zeros((most, rows.shape[1]), np.float64)
        padded[: len(rows)] = rows
        raw = multihost_utils.process_allgather(np.frombuffer(padded.tobytes(), np.uint8))
        return np.concatenate(
            [
                np.frombuffer(part.tobytes(), np.float64).reshape(most, -1)[: int(n)]
                for part, n in zip(np.asarray(raw), numbers.ravel(), strict=True)
            ]
        )

    def barrier(self, name: str) -> None:
        """Waits until every process has come here."""
        if self.process_count > 1:
            multihost_utils.sync_global_devices(name)
