"""The process that checks and measures on command: the other end of `rival.Rival`.

It alone opens the devices: an implementation that crashes, or a batch that does not fit, ends or
spoils this process and nothing else.
"""

import argparse
import gc
import importlib.metadata
import os

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# In a rehearsal compiling is all the work; for these flags see tests/conftest.py.
FAST_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def answer(request: dict) -> dict:
    """Does one part; which, and at what sizes, stands in the request."""
    import jax

    from benchmarks import measuring

    if request["do"] == "machine":
        found = {"platform": jax.default_backend(), "num_devices": jax.device_count()}
        return found | {"machine": measuring.machine()}
    from benchmarks.accelerator import checks, timings
    from benchmarks.accelerator.sizes import FULL, TINY

    sizes = TINY if request["tiny"] else FULL
    gc.collect()  # the arrays of the part before
    match request:
        case {"do": "check_network", "dtype": dtype}:
            return {"checks": [check._asdict() for check in checks.network(sizes, dtype)]}
        case {"do": "check_attention", "dtype": dtype}:
            return {"checks": [check._asdict() for check in checks.attention(sizes, dtype)]}
        case {"do": "attention", "length": length}:
            return timings.attention(sizes, length)
        case {"do": "step", "length": length}:
            return timings.step(sizes, length)
        case {"do": "batch", "batch_size": batch_size}:
            return timings.batch(sizes, batch_size)
        case {"do": "mesh", "shape": shape}:
            return timings.mesh(sizes, tuple(shape))
    raise ValueError(f"unknown request {request}")


def main() -> None:
    """Answers until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.process")
    parser.add_argument("--deterministic", action="store_true", help="on GPUs, the same bits twice")
    parser.add_argument("--cpu", help="rehearse: compile fast, and keep programs in this folder")
    arguments = parser.parse_args()
    if arguments.deterministic:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}"
    if arguments.cpu and importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ.setdefault("XLA_FLAGS", FAST_TO_COMPILE)
    import jax

    from benchmarks.rival import serve

    if arguments.cpu:
        jax.config.update("jax_compilation_cache_dir", arguments.cpu)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_disable_most_optimizations", True)
        jax.config.update("jax_default_prng_impl", "rbg")
    serve(answer)


if __name__ == "__main__":
    main()
