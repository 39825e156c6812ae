"""Hugging Face's BERT and GPT-2 in PyTorch, measured on command: the other end of `rival.Rival`.

Runs under a Python that has torch and transformers, and none of our packages. Attention is SDPA,
the optimizer fused AdamW, dropout is off, everything is float32 on the CPU.

- `eager`, `compiled`: `BertForPreTraining` as it is, which computes logits at every position;
- `eager, masked head`, `compiled, masked head`: its own encoder and head, with the head applied at
  the masked positions only, as ours does.

Of GPT-2, `GPT2LMHeadModel`, there is the loss over all positions alone.
"""

import functools
import time

import numpy as np
import torch
import transformers

from benchmarks.rival import last_line, serve

WARM_UP_STEPS = 2


class Steps:
    """One model and optimizer, and the ways to take a step with it.

    Args:
      kind: "bert" or "gpt2".
      sizes: of `transformers.BertConfig` or `GPT2Config`.
      path: .npz file of our batches, each array with a leading axis of steps.
    """

    def __init__(self, kind: str, sizes: dict, path: str):
        torch.manual_seed(0)
        self.model = {"bert": make_bert, "gpt2": make_gpt2}[kind](sizes).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.batches = read_batches(path)
        losses = {"": self.whole_loss, ", masked head": self.masked_loss}
        if kind == "gpt2":
            losses = {"": self.next_token_loss}
        self.ways = {f"eager{name}": loss for name, loss in losses.items()} | {
            f"compiled{name}": torch.compile(loss) for name, loss in losses.items()
        }

    def whole_loss(self, batch: dict) -> torch.Tensor:
        """As the library computes it."""
        return self.model(
            input_ids=batch["tokens"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["segments"],
            labels=batch["labels"],
            next_sentence_label=batch["nsp_labels"],
        ).loss

    def masked_loss(self, batch: dict) -> torch.Tensor:
        """The same loss from logits at the masked positions."""
        encoded = self.model.bert(
            input_ids=batch["tokens"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["segments"],
        )
        where = batch["masked_positions"][..., None].expand(-1, -1, self.model.config.hidden_size)
        picked = encoded.last_hidden_state.gather(1, where)
        logits, nsp = self.model.cls(picked, encoded.pooler_output)
        entropy = torch.nn.functional.cross_entropy
        mlm_loss = entropy(logits.flatten(0, 1), batch["masked_labels"].flatten())
        return mlm_loss + entropy(nsp, batch["nsp_labels"])

    def next_token_loss(self, batch: dict) -> torch.Tensor:
        """Of the token after each, the last included, which the library's own loss leaves out."""
        logits = self.model(input_ids=batch["tokens"], use_cache=False).logits
        entropy = torch.nn.functional.cross_entropy
        return entropy(logits.flatten(0, 1), batch["targets"].flatten())

    def warm_up(self) -> dict[str, str]:
        """Takes a few steps in every way; returns why those that cannot be taken cannot."""
        failed = {}
        for way in list(self.ways):
            try:
                for _ in range(WARM_UP_STEPS):
                    self.step(way, self.batches[0])
            except Exception as error:  # such as a machine without a C++ compiler
                failed[way] = last_line(error)
                del self.ways[way]
        return failed

    def step(self, way: str, batch: dict) -> torch.Tensor:
        """One update."""
        loss = self.ways[way](batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def seconds(self, way: str) -> dict[str, float]:
        """Seconds of a step on every batch, and the last loss."""
        since = time.perf_counter()
        for batch in self.batches:
            loss = self.step(way, batch)
        return {"seconds": time.perf_counter() - since, "loss": float(loss)}


def make_bert(sizes: dict) -> torch.nn.Module:
    """With heads for masks and for the next sentence."""
    config = transformers.BertConfig(
        **sizes,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    return transformers.BertForPreTraining(config)


def make_gpt2(sizes: dict) -> torch.nn.Module:
    """With the token table as its head."""
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(**sizes, **dropouts, attn_implementation="sdpa")
    return transformers.GPT2LMHeadModel(config)


def read_batches(path: str) -> list[dict[str, torch.Tensor]]:
    """Our batches as PyTorch's: int64, with -100 where nothing is to be predicted."""
    with np.load(path) as arrays:
        stacked = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    batches = []
    for step in range(len(stacked["tokens"])):
        batch = {name: values[step] for name, values in stacked.items()}
        if "targets" in batch:
            batches.append({name: batch[name].long() for name in ("tokens", "targets")})
            continue
        weighted = batch.pop("masked_weights") > 0
        batch = {name: values.long() for name, values in batch.items()}
        batch["masked_labels"] = batch.pop("masked_targets").masked_fill(~weighted, -100)
        labels = torch.full_like(batch["tokens"], -100)
        rows = torch.arange(len(labels))[:, None].expand_as(weighted)
        labels[rows[weighted], batch["masked_positions"][weighted]] = batch["masked_labels"][
            weighted
        ]
        batches.append(batch | {"labels": labels})
    return batches


def matrix_product(size: int, times: int) -> dict[str, float]:
    """The best FLOP/s of a float32 product of two square matrices."""
    matrix = torch.ones(size, size)
    seconds = []
    for _ in range(times):
        since = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - since)
    return {"flops_per_second": 2 * size**3 / min(seconds)}


def answer(request: dict, state: dict) -> dict:
    """Does what is asked for."""
    match request:
        case {"do": "versions", "threads": threads}:
            torch.set_num_threads(threads)
            return {"torch": torch.__version__, "transformers": transformers.__version__}
        case {"do": "prepare", "kind": kind, "sizes": sizes, "batches": path}:
            state.clear()  # the model before, whose memory this one needs
            torch.compiler.reset()
            state["steps"] = Steps(kind, sizes, path)
            failed = state["steps"].warm_up()
            return {"ways": list(state["steps"].ways), "failed": failed}
        case {"do": "steps", "way": way}:
            return state["steps"].seconds(way)
        case {"do": "matrix_product", "size": size, "times": times}:
            return matrix_product(size, times)
    raise ValueError(f"unknown request {request}")


def main() -> None:
    """Answers until the input ends."""
    serve(functools.partial(answer, state={}))


if __name__ == "__main__":
    main()
