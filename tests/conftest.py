"""Strictness for every test: CPU, eight fake devices, no silent promotion of dtype or rank."""

import importlib.metadata
import os
import pathlib

# Compiling is most of the work of these tests. Also for the processes that they start: compile each
# program once, and without LLVM's optimisations, with which `make test-all` compiles.
XLA_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache/xla"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(XLA_CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# XLA's emitters by MLIR, in 32 modules a program, take thrice as long to compile. A flag that XLA
# does not know ends the process, so these are set where they are known to be.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and (
    importlib.metadata.version("jaxlib").startswith("0.10.")
):
    FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", FLAGS)
# Lowering writes a stack trace to each operation, which nothing here reads.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# XLA gives its CPU devices this many threads, and waiting collectives hold theirs: with the default
# of eight, two sums of one program on eight devices may wait for each other for ever.
os.environ["NPROC"] = "64"

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The same examples everywhere, and no complaint about a machine that is slow.
hypothesis.settings.register_profile(
    "ours",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ours")


@pytest.fixture
def key():
    return jax.random.key(0)
