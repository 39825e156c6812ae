"""The model that ships beside features of words: five sets of GLUE, one table."""

import functools
import json
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from matplotlib.figure import Figure

import sibert_jax
from experiments import arms, claims
from sibert_jax.report.run_folder import Run
from sibert_jax.tasks.classification.examples import Examples, read_examples
from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.tasks.classification.metrics import METRICS
from sibert_jax.tasks.finetuning_data import held_out_mask

MODEL = claims.HERE.parent / "models/mini"
FILES = {
    "rte": ("RTE/train", "RTE/dev"),
    "mrpc": ("MRPC/train", "MRPC/test"),
    "cola": ("CoLA/train", "CoLA/dev"),
    "sst2": ("SST-2/train", "SST-2/dev"),
    "mnli": ("MNLI/train_part*", "MNLI/dev_matched"),
}
SETS = {"minutes": ("rte",), "hours": tuple(FILES), "gpu": tuple(FILES)}
SEEDS = {"rte": 3, "mrpc": 3, "cola": 3, "sst2": 1, "mnli": 1}
EPOCHS = 3.0
HELD_OUT = 0.1  # of the training file, by a hash of the text: what C and the rates are chosen by
SECONDS = {"minutes": 1.0, "hours": 60.0, "gpu": 60.0}  # of a point without training

# Without training of the model: what logistic regression reads.
FEATURES = {
    "TF-IDF": ("words",),
    "models/mini, frozen": ("model",),
    "both": ("words", "model"),
}
C = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
WEIGHTS = {"cola": (None, "balanced")}  # of the classes; where the metric is not accuracy

FRESH = {
    "model.arch": "sibert_sandwich",
    "model.identity_init": True,
    "model.num_segments": 1,
    **arms.NEIGHBORS,
    "data.vocab": str(MODEL.relative_to(claims.HERE.parent) / "vocab.txt"),
}
ADAMW = {"optim.name": "adamw", "optim.learning_rate": 3e-4}
IMPORTED = {"checkpoint.init_from": "{runs}/mini"}
STATELESS = {"optim.name": "orthogonalized_sgd", "optim.eta_lambda": 1e-3}
ARMS = {
    "models/mini, AdamW": ADAMW | IMPORTED,
    "models/mini, stateless": STATELESS | IMPORTED,
    "from scratch, AdamW": ADAMW | FRESH,
}


def points(scale: str) -> list[dict]:
    """One set after the other with a seed of all arms; then the other seeds."""
    first, others = [], []
    for name in SETS[scale]:
        first += [{"arm": arm, "dataset": name} | files(name) for arm in FEATURES]
        if scale != "minutes":
            first += [finetune(arm, name, 0) for arm in ARMS]
            seeds = range(1, SEEDS[name])
            others += [finetune(arm, name, seed) for seed in seeds for arm in ARMS]
    return first + others


def files(name: str) -> dict:
    """The places of its training set and of the set that is scored."""
    paths = (f"{{data}}/glue/{path}.tsv*" for path in FILES[name])
    return dict(zip(("data.path", "data.test_path"), paths))


def finetune(arm: str, name: str, seed: int) -> dict:
    """A run of `configs/glue.py`."""
    optim = ",optim=stateless" if arm == "models/mini, stateless" else ""
    balanced = {"task.class_weights": "balanced"} if name in WEIGHTS else {}
    return {
        "arm": arm,
        "config": f"glue:task={name}{optim}",
        "task.pooling": "pair" if len(TASKS[name].texts) == 2 else "mean",
        "data.valid_path": "",
        "data.valid_fraction": HELD_OUT,
        "data.num_seq_lens": 2,
        "train.num_epochs": EPOCHS,
        "train.eval_every_steps": 0,
        "checkpoint.keep": 1,
        "seed": seed,
        **files(name),
        **balanced,
        **ARMS[arm],
    }


def measure(run: Run) -> dict:
    """Scores of the held-out tenth and of the set that decides nothing."""
    results = json.loads((run.path / "results.json").read_text())
    metric = results["main_metric"]
    *_, test = results["held_out"].values()
    return {"valid": results["last"][f"eval/{metric}"], "score": test[metric]}


def compute(point: dict) -> dict:
    """Logistic regression; C by the held-out tenth of the training set."""
    from sklearn.linear_model import LogisticRegression

    name, paths = point["dataset"], (point["data.path"], point["data.test_path"])
    sets = read_sets(name, *paths)
    parts = [features(kind, name, *paths) for kind in FEATURES[point["arm"]]]
    fitted, valid, tested = (scipy.sparse.hstack(columns).tocsr() for columns in zip(*parts))
    score, tried = METRICS[TASKS[name].metrics[0]], []
    for weight in WEIGHTS.get(name, (None,)):
        for c in C:
            model = LogisticRegression(C=c, class_weight=weight, max_iter=300)
            model.fit(fitted, sets[0].labels)
            outputs = (model.predict(x) for x in (valid, tested))
            scores = [float(score(y, s.labels)) for y, s in zip(outputs, sets[1:])]
            tried.append((*scores, c, weight or ""))
    best = max(tried, key=lambda row: row[0])  # the first of those with the best held-out tenth
    labels = sets[2].labels
    majority = np.full(len(labels), np.bincount(sets[0].labels).argmax())
    result = dict(zip(("valid", "score", "C", "class_weight"), best))
    return result | {"majority": float(score(majority, labels)), "tried": tried}


def read_sets(name: str, train_path: str, test_path: str) -> list[Examples]:
    """Nine tenths of the training set, the tenth that is held out, the set that is scored."""
    train, test = (read_examples("files", path, TASKS[name]) for path in (train_path, test_path))
    held_out = held_out_mask(train.texts, train.labels, HELD_OUT)
    return [train.subset(~held_out), train.subset(held_out), test]


@functools.lru_cache(maxsize=2)
def features(kind: str, *place: str) -> list:
    """A matrix of each set, a row an example."""
    return {"words": words, "model": vectors}[kind](read_sets(*place))


def words(sets: Sequence[Examples]) -> list:
    """TF-IDF of one and two words, of each text of a pair."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = []
    for texts in zip(*(s.texts for s in sets)):
        counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts[0])
        columns.append([counts.transform(part) for part in texts])
    return [scipy.sparse.hstack(parts) for parts in zip(*columns)]


def vectors(sets: Sequence[Examples]) -> list:
    """Means a and b of the features of each text; of a pair also |a − b| and a·b.

    Standardized, and divided by √columns: a row's norm is about 1, as that of TF-IDF.
    """
    model, found = sibert_jax.load(MODEL), []
    for examples in sets:
        means = [model.encode(texts) for texts in examples.texts]
        if len(means) == 2:
            means += [np.abs(means[0] - means[1]), means[0] * means[1]]
        found.append(np.hstack(means))
    center, scale = found[0].mean(axis=0), found[0].std(axis=0) * found[0].shape[1] ** 0.5
    return [scipy.sparse.csr_array((x - center) / scale) for x in found]


def draw(figure: Figure, lines: Sequence[dict]) -> None:
    """A panel a set: the score of each arm, a point a seed, and of the most frequent class."""
    names = [name for name in FILES if any(set_of(line) == name for line in lines)]
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names):
        found = claims.by_arm([line for line in lines if set_of(line) == name])
        for row, arm in enumerate((*FEATURES, *ARMS)):
            runs = found.get(arm, [])
            scores = [100 * line["result"]["score"] for line in runs if finished(line)]
            axis.plot(scores, [row] * len(scores), "o", color=arms.COLORS[row], markersize=10)
        if "TF-IDF" in found:
            axis.axvline(100 * found["TF-IDF"][0]["result"]["majority"], color="gray", ls=":")
        axis.set(title=f"{name}, {TASKS[name].metrics[0]} (%)", ylim=(5.5, -0.5))
        axis.set_yticks(range(6), (*FEATURES, *ARMS) if name == names[0] else [""] * 6)


def set_of(line: dict) -> str:
    """The name of its set."""
    point = line["point"]
    return point["dataset"] if "dataset" in point else point["config"].split("=")[1].split(",")[0]


def finished(line: dict) -> bool:
    """Whether it has a score; without one it diverged."""
    return "score" in line["result"]


def table(lines: Sequence[dict]) -> str:
    """Percent of the set that decides nothing; mean ± standard deviation where there are seeds."""
    rows = []
    for name in FILES:
        found = claims.by_arm([line for line in lines if set_of(line) == name])
        cells = [
            claims.spread(
                [100 * x["result"]["score"] if finished(x) else None for x in found[arm]], 1
            )
            if arm in found
            else "–"
            for arm in (*FEATURES, *ARMS)
        ]
        if found:
            majority = f"{100 * found['TF-IDF'][0]['result']['majority']:.1f}"
            rows.append([f"{name}, {TASKS[name].metrics[0]}", majority, *cells])
    return claims.markdown(("", "most frequent class", *FEATURES, *ARMS), rows)
