"""What `transformers` makes and loads of GPT-2, for gpt2_transformers_test.py; see there.

python gpt2_side.py make DIR: models in DIR/CASE/theirs, with a vocabulary, the ids of texts, their
    outputs, and their weights in float32.
python gpt2_side.py load DIR: loads DIR/CASE/exported and writes the same of it.
"""

import json
import pathlib
import sys

import numpy as np

try:
    import tokenizers
    import torch
    import transformers
except ImportError:  # the test needs the names of the cases only
    pass

LENGTH, VOCAB = 16, 300
SIZES = {"vocab_size": VOCAB, "n_positions": LENGTH, "n_embd": 12, "n_layer": 2, "n_head": 3}
# Class, what its config says besides the sizes, dtype.
CASES = {
    "language-model": ("GPT2LMHeadModel", {}, "float32"),
    "bare": ("GPT2Model", {}, "float32"),
    "sizes": ("GPT2LMHeadModel", {"n_inner": 20, "layer_norm_epsilon": 1e-3}, "float32"),
    "half": ("GPT2LMHeadModel", {}, "bfloat16"),
    "padded": ("GPT2LMHeadModel", {"vocab_size": 320}, "float32"),
}
TEXTS = (
    "The old man's hat, the 1,234 hats!  Two  spaces\n\n and\ttabs; they'll\r\n see... ",
    "é ü 中文 \u3000 👩\u200d🚀 ½ x² ٣٤ _a_ <b> don'T",
    "",
    " ",
    "<|endoftext|>",
)


def make(directory: pathlib.Path) -> None:
    for name, (kind, settings, dtype) in CASES.items():
        config = transformers.GPT2Config(**SIZES | settings)
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config).eval()
        with torch.no_grad():  # biases start at 0 and gains at 1: make every tensor its own
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.to(getattr(torch, dtype))
        here = directory / name
        model.save_pretrained(here / "theirs")
        write_vocabulary(here / "theirs", as_files=name != "bare")
        describe(model.float(), here / "wanted", here / "theirs")


def write_vocabulary(directory: pathlib.Path, as_files: bool) -> None:
    """In the two files of the first GPT-2, or as `save_pretrained` writes it today."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator([*TEXTS, __doc__, pathlib.Path(__file__).read_text()], trainer)
    library.model.save(str(directory))
    if not as_files:
        theirs = transformers.GPT2Tokenizer.from_pretrained(directory)
        for name in ("vocab.json", "merges.txt"):
            (directory / name).unlink()
        theirs.save_pretrained(directory)


def load(directory: pathlib.Path) -> None:
    for path in sorted(directory.glob("*/exported")):
        config = json.loads((path / "config.json").read_text())
        kind = getattr(transformers, config["architectures"][0])
        arguments = {"dtype": torch.float32, "output_loading_info": True}
        model, report = kind.from_pretrained(path, **arguments)
        found = path.parent / "found"
        describe(model.eval(), found, path)
        problems = {key: sorted(map(str, names)) for key, names in report.items() if names}
        (found / "problems.json").write_text(json.dumps(problems))


def describe(model, directory: pathlib.Path, vocabulary: pathlib.Path) -> None:
    """Weights and outputs of a model, and the ids of its tokenizer."""
    directory.mkdir()
    tokens = np.random.default_rng(0).integers(0, VOCAB, (3, LENGTH))
    with torch.no_grad():
        outputs = model(torch.tensor(tokens))
    name = "logits" if "logits" in outputs else "last_hidden_state"
    np.savez(directory / "outputs.npz", tokens=tokens, **{name: outputs[name].numpy()})
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.savez(directory / "weights.npz", **state)
    tokenizer = transformers.AutoTokenizer.from_pretrained(vocabulary)
    ids = [tokenizer(text, split_special_tokens=True).input_ids for text in TEXTS]
    (directory / "ids.json").write_text(json.dumps(ids))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    action, where = sys.argv[1], pathlib.Path(sys.argv[2])
    {"make": make, "load": load}[action](where)
