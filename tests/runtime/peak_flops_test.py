"""Model FLOPs against those that XLA counts, and what a share of the peak is."""

import jax
import pytest

from sibert_jax.model.config import ARCHS
from sibert_jax.runtime.peak_flops import PEAKS, peak_flops
from sibert_jax.train.config import default_config, run_config
from sibert_jax.train.resolve import resolve
from sibert_jax.train.trainer import bare_task

SEQ_LEN, ROWS = 64, 2
# XLA counts the elementwise work too, so its figure is greater, by up to this share of it.
TOLERANCE = 0.04


def lowered_gradient(task):
    batch = task.abstract_batch(ROWS, SEQ_LEN)
    params = jax.eval_shape(task.init, jax.random.key(0), batch)

    def loss(params, batch):
        sums = task.sums(params, batch)
        return sum(sums[name] for name in task.loss_names)

    return jax.jit(jax.grad(loss)).lower(params, batch)


def pretraining(arch: str, nsp: bool = True):
    """Unrolled, as XLA counts the body of a loop once."""
    config = default_config()
    config.model.update(arch=arch, width=256, depth=2, num_heads=4, ffn_width=1024)
    config.model.update(vocab_size=1024, max_len=SEQ_LEN, scan_layers=False)
    config.data.seq_len = SEQ_LEN
    config.task.nsp = nsp
    if arch == "bert":
        config.task.head = "tied"
    return bare_task(run_config(resolve(config)))


OTHERS = [
    pytest.param(arch, compiled, marks=pytest.mark.slow)
    for arch, compiled in [("sibert", True), ("bert", True), *((arch, False) for arch in ARCHS)]
]


@pytest.mark.parametrize(("arch", "compiled"), [("sibert", False), ("bert", False), *OTHERS])
def test_the_formula_agrees_with_what_xla_counts(arch, compiled):
    task = pretraining(arch)
    formula = task.flops_per_token(SEQ_LEN) * SEQ_LEN * ROWS
    lowered = lowered_gradient(task)
    counted = (lowered.compile() if compiled else lowered).cost_analysis()["flops"]
    assert formula <= counted <= formula / (1 - TOLERANCE)


def test_the_stem_and_the_next_sentence_head_count():
    width, arch = 256, "sibert"
    flops = {a: pretraining(a).flops_per_token(SEQ_LEN) for a in ("sibert", "bert")}
    assert flops["sibert"] - flops["bert"] == 6 * width**2
    without = pretraining(arch, nsp=False).flops_per_token(SEQ_LEN)
    assert flops[arch] - without == pytest.approx(6 * width * (width + 2) / SEQ_LEN)


def test_no_device_is_faster_with_float32_than_with_bfloat16():
    assert all(0 < peak.float32 <= peak.bfloat16 for peak in PEAKS.values())
    assert peak_flops("NVIDIA H200", "float32") == 494.5e12
