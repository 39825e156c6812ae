"""What is exported comes back bit for bit, and PyTorch computes the same from it."""

import dataclasses
import json
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sibert_jax.interop import exported
from sibert_jax.model import ARCHS, Encoder

from .conftest import BERT, random_params


def sibert(arch, **changes):
    changes = {"qkv_bias": False, "norm_eps": 1e-6} | changes
    return dataclasses.replace(BERT, arch=arch, **changes)


@pytest.mark.parametrize(
    ("arch", "scan_layers"), [*((arch, True) for arch in ARCHS), ("sibert", False)]
)
def test_model_comes_back_bit_for_bit(tmp_path, arch, scan_layers):
    cfg = sibert(arch, scan_layers=scan_layers)
    params = random_params(cfg) | {"head": {"transform": {"kernel": np.eye(12, dtype="float32")}}}
    exported.write(tmp_path / "out", cfg, params, "a test", ("no", "yes"))
    named = json.loads((tmp_path / "out/config.json").read_text())["id2label"]
    assert named == {"0": "no", "1": "yes"}
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    found_cfg, found = exported.read(tmp_path / "out")
    assert found_cfg == cfg
    jax.tree.map(np.testing.assert_array_equal, found, params)
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith(f"# {arch}, 0.0 million parameters")
    assert "| `encoder/layers/2/ffn/up/kernel` | (12, 20) |" in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qkv_bias": True, "num_segments": 1},
        {"attention_window": 2, "global_attention_every": 2},
        {"positions": "rotary"},
    ],
)
@pytest.mark.parametrize("arch", exported.WITH_MODELING)
def test_pytorch_computes_the_same_features(tmp_path, arch, changes):
    torch = pytest.importorskip("torch", reason="needs torch")
    cfg = sibert(arch, **changes)
    params = random_params(cfg)
    directory = exported.write(tmp_path / "out", cfg, params, "a test")
    rng = np.random.default_rng(0)
    tokens, segments = rng.integers(0, 50, (3, 16)), rng.integers(0, 2, (3, 16))
    valid = np.arange(16)[None] < np.array([16, 9, 4])[:, None]
    modeling = runpy.run_path(str(directory / "modeling_sibert.py"))
    encoder = modeling["Sibert"].from_directory(directory)
    theirs = encoder(*(torch.tensor(x) for x in (tokens, segments, valid))).numpy()
    ours, _ = jax.jit(Encoder(cfg).apply)(
        {"params": params["encoder"]},
        *(jnp.asarray(x, "int32") for x in (tokens, segments)),
        jnp.asarray(valid),
    )
    np.testing.assert_allclose(theirs[valid], np.asarray(ours)[valid], atol=2e-5)
    scaled = modeling["Sibert"](encoder.config, {k: v * 4 for k, v in encoder.weights.items()})
    again = scaled(*(torch.tensor(x) for x in (tokens, segments, valid))).numpy()
    np.testing.assert_array_equal(again, theirs)


def test_blocks_of_its_readme_run(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs torch")
    cfg = sibert("sibert")
    directory = exported.write(tmp_path / "out", cfg, random_params(cfg), "a test")
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(directory))
    blocks = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        namespace = {}
        exec(block, namespace)
    assert namespace["features"].shape == (1, 4, 12)
