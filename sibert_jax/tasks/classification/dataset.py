"""The description of a dataset: columns, labels, metrics."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset of labeled texts.

    Args:
      name: name of the dataset in messages.
      texts: the possible names of each text column; one column or two.
      label_columns: the possible names of the label column.
      labels: the classes as written in the files; () for a score.
      metrics: keys of `metrics.METRICS`; the best evaluation is chosen by the first.
      score_range: the lowest and the highest score; () for classes.
      id_columns: the possible names of the id column; (): row numbers are the ids.
      unnamed_columns: the columns of official files without a header line; (): all have one.
      no_label: the value that means no label; such rows are left out.
      format: the file format, one of `tables.FORMATS`.
      header: whether the first row names the columns; otherwise these are called "0", "1", ...
      is_official: whether it is a GLUE task: every row of its held-out sets counts, and predictions
        are written in GLUE's submission format.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    label_columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    score_range: tuple[float, ...] = ()
    id_columns: tuple[str, ...] = ()
    unnamed_columns: tuple[str, ...] = ()
    no_label: str = ""
    format: str = "auto"
    header: bool = True
    is_official: bool = False

    @property
    def text_names(self) -> list[str]:
        """The names of the texts in answers: those of their columns, if these have names."""
        names = [names[0] for names in self.texts]
        own = ["text"] if len(names) == 1 else ["text 1", "text 2"]
        return own if all(name.isdecimal() for name in names) else names
