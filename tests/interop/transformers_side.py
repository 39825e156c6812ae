"""What `transformers` makes and loads, for transformers_test.py; runs where torch is installed.

python transformers_side.py make DIR: models of every kind in DIR/CASE/theirs, their outputs and
    their weights in float32.
python transformers_side.py load DIR: loads DIR/CASE/exported and writes the same two of it.
python transformers_side.py answer DIR: labels the texts of DIR/CASE/new.json by DIR/CASE/exported.
"""

import itertools
import json
import pathlib
import sys

import numpy as np

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError:  # the test needs the names of the cases only
    pass

LENGTH, VOCAB = 16, 50
SIZES = {
    "vocab_size": VOCAB,
    "max_position_embeddings": LENGTH,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
}
NAMES = ("contradiction", "entailment", "neutral")
# Class, and what its config says besides the sizes.
KINDS = {
    "model": ("BertModel", {}),
    "model-no-pooler": ("BertModel", {}),
    "pretraining": ("BertForPreTraining", {}),
    "masked-lm": ("BertForMaskedLM", {}),
    "regression": ("BertForSequenceClassification", {"num_labels": 1}),
    "two": ("BertForSequenceClassification", {}),
    "named": (
        "BertForSequenceClassification",
        {"id2label": dict(enumerate(NAMES)), "label2id": {x: i for i, x in enumerate(NAMES)}},
    ),
    "multi-label": (
        "BertForSequenceClassification",
        {"num_labels": 5, "problem_type": "multi_label_classification", "finetuning_task": "x"},
    ),
    "question-answering": ("BertForQuestionAnswering", {}),
    "tags": (
        "BertForTokenClassification",
        {"id2label": dict(enumerate(NAMES)), "label2id": {x: i for i, x in enumerate(NAMES)}},
    ),
}
VARIANTS = {
    "plain": {},
    "one-type": {"type_vocab_size": 1},
    "four-types": {"type_vocab_size": 4},
    "padded": {"vocab_size": 64},
    "other-values": {"layer_norm_eps": 1e-5, "hidden_act": "gelu_python", "initializer_range": 0.1},
    "untied": {"tie_word_embeddings": False},
    "keys-absent": {},
    "sharded": {},
    "old-names": {},
    "prefix": {},
}
DTYPES = ("float32", "float16", "bfloat16")
ABSENT = (
    *("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size"),
    *("initializer_range", "pad_token_id", "use_cache", "dtype", "transformers_version"),
)


def cases() -> dict[str, tuple[str, str, str]]:
    """Name of a case: kind, variant, dtype."""
    product = itertools.product(KINDS, VARIANTS, DTYPES)
    return {"-".join(case): case for case in product if makes_sense(*case)}


def makes_sense(kind: str, variant: str, _: str) -> bool:
    if variant == "untied":
        return kind in ("pretraining", "masked-lm")
    return variant != "prefix" or kind.startswith("model")


def make(directory: pathlib.Path) -> None:
    for name, (kind, variant, dtype) in cases().items():
        here = directory / name
        class_name, settings = KINDS[kind]
        config = transformers.BertConfig(**SIZES | settings | VARIANTS[variant])
        torch.manual_seed(0)
        arguments = {"add_pooling_layer": False} if kind == "model-no-pooler" else {}
        model = getattr(transformers, class_name)(config, **arguments).eval()
        with torch.no_grad():  # biases start at 0 and gains at 1: make every tensor its own
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.to(getattr(torch, dtype))
        limit = {"max_shard_size": "2KB"} if variant == "sharded" else {}
        model.save_pretrained(here / "theirs", **limit)
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(45))]
        (here / "theirs/vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        spoil(here / "theirs", variant)
        describe(model.float(), here / "wanted")


def spoil(directory: pathlib.Path, variant: str) -> None:
    """Writes the same model as other versions and programs do."""
    weights, config = directory / "model.safetensors", directory / "config.json"
    if variant == "keys-absent":
        values = json.loads(config.read_text())
        config.write_text(json.dumps({k: v for k, v in values.items() if k not in ABSENT}))
    elif variant in ("old-names", "prefix"):
        tensors = load_file(weights)
        for name in tuple(tensors):
            old = name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
            tensors[old if variant == "old-names" else f"bert.{name}"] = tensors.pop(name)
        save_file(tensors, weights, metadata={"format": "pt"})


def load(directory: pathlib.Path) -> None:
    for path in sorted(directory.glob("*/exported")):
        config = json.loads((path / "config.json").read_text())
        kind = getattr(transformers, config["architectures"][0])
        arguments = {"dtype": torch.float32, "output_loading_info": True}
        has_pooler = any("pooler" in name for name in load_file(path / "model.safetensors"))
        if kind.__name__ == "BertModel" and not has_pooler:
            arguments["add_pooling_layer"] = False
        model, report = kind.from_pretrained(path, **arguments)
        found = path.parent / "found"
        describe(model.eval(), found)
        problems = {key: sorted(map(str, names)) for key, names in report.items() if names}
        (found / "problems.json").write_text(json.dumps(problems))


def answer(directory: pathlib.Path) -> None:
    """Writes DIR/answers.json of each DIR/exported and DIR/new.json: labels, or scores."""
    for path in sorted(directory.glob("*/exported")):
        config = transformers.AutoConfig.from_pretrained(path)
        kind = getattr(transformers, config.architectures[0])
        model = kind.from_pretrained(path, dtype=torch.float32).eval()
        tokenizer = transformers.BertTokenizerFast.from_pretrained(path)
        answers, is_tagger = [], kind.__name__ == "BertForTokenClassification"
        for text in json.loads((path.parent / "new.json").read_text()):
            texts = [text] if isinstance(text, str) or is_tagger else text
            encoded = tokenizer(*texts, is_split_into_words=is_tagger, return_tensors="pt")
            with torch.no_grad():
                outputs = model(**encoded).logits[0]
            if is_tagger:
                words = encoded.word_ids()
                outputs = outputs[[words.index(i) for i in range(len(text))]]
            if config.problem_type == "regression":
                answers.append(outputs.item())
            else:
                best = outputs.argmax(-1).tolist()
                named = [config.id2label[i] for i in np.atleast_1d(best)]
                answers.append(named if is_tagger else named[0])
        (path.parent / "answers.json").write_text(json.dumps(answers))


def describe(model, directory: pathlib.Path) -> None:
    """Weights, labels and outputs of a model."""
    directory.mkdir()
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (3, LENGTH))
    mask = np.ones_like(tokens)
    mask[1, 9:] = mask[2, 5:] = 0
    inputs = {
        "input_ids": tokens,
        "token_type_ids": tokens % model.config.type_vocab_size,
        "attention_mask": mask,
    }
    with torch.no_grad():
        outputs = model(**{name: torch.tensor(array) for name, array in inputs.items()})
    arrays = {name: value.numpy() for name, value in outputs.items() if value is not None}
    np.savez(directory / "outputs.npz", **arrays)
    np.savez(directory / "inputs.npz", **inputs)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.savez(directory / "weights.npz", **state)
    config = model.config
    labels = {"id2label": config.id2label, "label2id": config.label2id}
    labels |= {"class": type(model).__name__, "problem_type": config.problem_type}
    (directory / "config.json").write_text(json.dumps(labels))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    action, where = sys.argv[1], pathlib.Path(sys.argv[2])
    {"make": make, "load": load, "answer": answer}[action](where)
