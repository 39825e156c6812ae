"""Keys under `task` of a classification config, and the dataset that they describe."""

import dataclasses
import math
import pathlib

from sibert_jax.data.config import LabeledConfig, split_paths
from sibert_jax.errors import ConfigError
from sibert_jax.keys import check, key
from sibert_jax.tasks.classification.dataset import Dataset
from sibert_jax.tasks.classification.glue import TASKS
from sibert_jax.tasks.finetuning import FinetuningConfig

OWN = "own"  # value of `task.dataset`


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(FinetuningConfig):
    """Keys under `task` of a classification config."""

    name: str = key("classification", "kind of task, fixed by the configuration")
    dataset: str = key(
        OWN, "own: your files, described by the other keys; else a GLUE task, with its columns, "
        "labels and metrics", choices=(OWN, *TASKS),
    )  # fmt: skip
    kind: str = key(
        "classes", "type of your own labels: classes, or numbers (regression)",
        choices=("classes", "regression"),
    )  # fmt: skip
    labels: tuple[str, ...] = key((), "your own classes, in order; (): those found in data.path")
    score_range: tuple[float, ...] = key(
        (), "minimum and maximum of your own scores, to which predictions are clipped; (): those "
        "found in data.path",
    )  # fmt: skip
    pooling: str = key(
        "first", "input of the head; first: features of the first token, as in BERT; mean: mean "
        "over all tokens; pair: the means of both texts, their difference and product",
        choices=("first", "mean", "pair"),
    )  # fmt: skip
    class_weights: str = key(
        "", "class weights in the training loss; balanced: same total weight for each class; "
        "LABEL:WEIGHT,...: these, and 1 for other classes; empty: all 1",
    )  # fmt: skip
    label_smoothing: float = key(
        0.0, "fraction of the training target that is spread evenly over all classes", low=0,
        below=1,
    )  # fmt: skip
    strict: bool = key(False, "stop at a malformed row instead of skipping it", may_change=True)

    def __post_init__(self):
        check("task", self)
        if not all(isinstance(label, str) for label in self.labels):
            raise ConfigError(f"task.labels={self.labels!r} must be strings, as in ('0', '1').")
        if twice := [label for label in self.labels if self.labels.count(label) > 1]:
            raise ConfigError(f"task.labels has {twice[0]!r} twice.")
        if self.score_range and not (
            len(self.score_range) == 2 and -math.inf < self.score_range[0] < self.score_range[1]
            and self.score_range[1] < math.inf
        ):  # fmt: skip
            raise ConfigError(
                f"task.score_range={self.score_range!r} must be two numbers, the lower first."
            )
        if self.is_regression and (self.class_weights or self.label_smoothing):
            raise ConfigError(
                "task.class_weights and task.label_smoothing are for classes, and this task has "
                "scores; leave them out."
            )

    @property
    def is_regression(self) -> bool:
        """Whether the labels are scores."""
        if self.dataset == OWN:
            return self.kind == "regression"
        return not TASKS[self.dataset].labels

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; () for a score, and for own data with unspecified classes."""
        return self.labels if self.dataset == OWN else TASKS[self.dataset].labels

    @property
    def scores(self) -> tuple[float, ...]:
        """The lowest and the highest score; () for classes, and for own data without a range."""
        return self.score_range if self.dataset == OWN else TASKS[self.dataset].score_range

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, the main one first."""
        if self.dataset != OWN:
            return TASKS[self.dataset].metrics
        regression, classes = ("pearson", "spearman", "rmse"), ("accuracy", "macro_f1")
        return regression if self.is_regression else classes


def dataset_of(task: ClassificationConfig, data: LabeledConfig) -> Dataset:
    """Returns the dataset that a config describes: one of GLUE, or the user's own.

    Raises:
      ConfigError: `data.text` names no column, or more than two.
    """
    changes = {"format": data.format, "header": data.header}
    if data.text:
        changes["texts"] = tuple((name,) for name in split_paths(data.text))
        if len(changes["texts"]) not in (1, 2):
            raise ConfigError(
                f"data.text={data.text!r} names {len(changes['texts'])} columns; name one, or two "
                "with a comma between them for pairs."
            )
    if data.label:
        changes["label_columns"] = (data.label,)
    if task.dataset != OWN:
        return dataclasses.replace(TASKS[task.dataset], **changes)
    name, scores = pathlib.Path(data.path).name, task.scores
    own = Dataset(name, (("text",),), ("label",), task.classes, task.metrics, scores)
    return dataclasses.replace(own, **changes)
