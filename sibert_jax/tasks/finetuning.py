"""Defaults, config keys and answer formats shared by the fine-tuning tasks."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sibert_jax.keys import key

# LAMB on all parameters, as the paper fine-tunes SIBERT. Epochs, warm-up and decay are BERT's
# (Devlin et al. 2019, A.3); the learning rate is from experiments/finetuning_rates.
DEFAULTS = {
    "optim.name": "lamb",
    "optim.eta_lambda": 0.0,
    "optim.learning_rate": 1e-2,
    "optim.weight_decay": 0.01,
    "optim.max_grad_norm": 1.0,
    "optim.schedule": "linear",
    "optim.warmup_fraction": 0.1,
    "optim.head.name": "same",
    "optim.head.warmup_fraction": 0.1,
    "train.num_steps": 0,
    "train.num_epochs": 3.0,
    "train.eval_batches": 0,
}


MOST_LISTED = 20  # maximum number of labels in a message


@dataclasses.dataclass(frozen=True)
class FinetuningConfig:
    """Keys under `task` of every task that fine-tunes an encoder."""

    name: str = key("", "kind of task, fixed by the configuration")
    head: str = key(
        "standard", "type of output head; standard: as in BERT; invariant: scale invariant, as "
        "SIBERT's encoder", choices=("standard", "invariant"),
    )  # fmt: skip
    logit_scale: float = key(
        8.0, "largest possible logit of the invariant head", above=0, below=math.inf
    )
    loss_scale: float = key(
        1.0, "constant factor on the loss before differentiation", above=0, below=math.inf
    )


def listed(names: Sequence[str]) -> str:
    """Joins the first names, with "..." if there are more."""
    return ", ".join([*names[:MOST_LISTED], *["..."] * (len(names) > MOST_LISTED)])


def tab_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats records as tab-separated lines after a header line: for `NewText.format`.

    White space within a field becomes one space. Numbers have six significant digits.

    Example:
      >>> tab_lines([{"prediction": "ham", "probability": 0.98, "text": "See\\nyou"}])
      ['prediction\\tprobability\\ttext', 'ham\\t0.98\\tSee you']
    """
    header = "\t".join(_field(name) for name in records[0])
    return [header, *("\t".join(map(_field, record.values())) for record in records)]


def _field(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


def json_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Formats records as one JSON object per line: for `NewText.format`."""
    return [json.dumps(record, ensure_ascii=False) for record in records]
