"""What the examples of a data set look like: columns, labels, metrics."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of labeled texts.

    Args:
      name: for messages.
      texts: the names that each text column may have; one column or two.
      label_columns: the names that the column of labels may have.
      labels: the classes as written in the files; () for a score.
      metrics: of `metrics.METRICS`; the best evaluation is chosen by the first.
      score_range: the least and the greatest score; () for classes.
      id_columns: the names that the column of keys may have; (): rows are counted.
      unnamed_columns: the columns of official files without a header line; (): all have one.
      no_label: what stands for no label; such a row is left out.
      format: of the files, one of `tables.FORMATS`.
      header: whether their first row names the columns; else these are called "0", "1", ...
      is_official: one of GLUE: every row of its held-out sets counts, and predictions are written
        in the form that GLUE takes.
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
        """What the texts are called in answers: as their columns, if these have names."""
        names = [names[0] for names in self.texts]
        own = ["text"] if len(names) == 1 else ["text 1", "text 2"]
        return own if all(name.isdecimal() for name in names) else names
