"""Runs where torch and auto-round are: python auto_round_side.py GIVEN.npz FOUND.npz

For each case: their weights for given knobs, and the error of the output after their tuning.
"""

import sys

import numpy as np
import torch
from auto_round.algorithms.quantization.sign_round.sign_sgd import SignSGD
from auto_round.wrapper import WrapperLinear


def wrapped(w_OI: torch.Tensor, bits: int, group: int, symmetric: bool) -> WrapperLinear:
    """A layer whose weights are quantized at each use, in float32 scales as ours."""
    layer = torch.nn.Linear(*w_OI.T.shape, bias=False)
    layer.weight.data.copy_(w_OI)
    settings = {"bits": bits, "group_size": group, "sym": symmetric, "data_type": "int"}
    settings |= {"act_bits": 16, "scale_dtype": torch.float32}
    for name, value in settings.items():
        setattr(layer, name, value)
    return WrapperLinear(layer, enable_torch_compile=False)


def tuned_error(layer: WrapperLinear, x_NI: torch.Tensor, steps: int) -> float:
    """Their loop: signed steps at a rate that falls to 0, and the least error of all."""
    target_NO = x_NI @ layer.orig_layer.weight.detach().T
    optimizer = SignSGD(list(layer.params.values()), lr=1 / steps)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    least = float("inf")
    for _ in range(steps):
        loss = (layer(x_NI) - target_NO).square().sum() / target_NO.square().sum()
        least = min(least, float(loss))
        optimizer.zero_grad()
        (1000 * loss).backward()
        optimizer.step()
        schedule.step()
    return least


def main(given_path: str, found_path: str) -> None:
    given, found = dict(np.load(given_path)), {}
    w_OI, x_NI, v, alpha, beta = (torch.tensor(given[k]) for k in ("w", "x", "v", "alpha", "beta"))
    for bits, symmetric in given["cases"].tolist():
        layer = wrapped(w_OI, bits, int(given["group"]), bool(symmetric))
        with torch.no_grad():
            weight_OI, _, _ = layer._qdq_weight(v, min_scale=beta, max_scale=alpha)
        found[f"weight {bits} {symmetric}"] = weight_OI.numpy()
        found[f"error {bits} {symmetric}"] = tuned_error(layer, x_NI, int(given["steps"]))
    np.savez(found_path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
