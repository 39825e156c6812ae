"""The peak of the machine: one large float32 matrix product."""

import time

import jax
import jax.numpy as jnp

SIZE, TIMES = 2048, 5


def flops_per_second(size: int = SIZE, times: int = TIMES) -> float:
    """The best FLOP/s of a float32 product of two square matrices in JAX."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    seconds = []
    for _ in range(times):
        since = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        seconds.append(time.perf_counter() - since)
    return 2 * size**3 / min(seconds)
