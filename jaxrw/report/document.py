"""The report as a document of titles, paragraphs, tables and pictures: what the template of each format renders."""

import dataclasses
import pathlib
from collections.abc import Sequence

from jaxrw.report.evidence.collect import Problem


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: first line.
      bold: whether the text is bold.
      arrow: whether an arrow upwards follows the text.
      warning: whether a warning sign precedes the text.
      num_seeds: number of seeds, shown after the text; 0: no number.
      missing: whether that number gets a mark for missing seeds.
      published: second line, what the paper has; empty: no second line.
    """

    text: str
    bold: bool = False
    arrow: bool = False
    warning: bool = False
    num_seeds: int = 0
    missing: bool = False
    published: str = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """Heading of a column, and whether its cells are numbers, which are aligned to the right."""

    title: str
    is_number: bool = True


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose rows begin with a label.

    Attributes:
      title: heading.
      columns: without that of the labels.
      rows: (label, a cell for each column).
      caption: paragraph below the table.
      has_accuracies: whether cells are accuracies; LaTeX has these tables alone.
      number: the paper's, if it has the table.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    caption: str
    has_accuracies: bool = False
    number: int | None = None


@dataclasses.dataclass(frozen=True)
class Album:
    """Pictures of a run.

    Attributes:
      title: method and seed.
      path: of the run.
      pictures: paths of PNG files by their captions.
    """

    title: str
    path: str
    pictures: dict[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class Section:
    """A setting.

    Attributes:
      title: network and data set.
      num_epochs: length of the training.
      paragraphs: the setting, and how its runs were made; the second may be empty.
      pictures: paths of PNG files over all of its runs, by their captions.
      tables: accuracies first.
      albums: pictures.
    """

    title: str
    num_epochs: int
    paragraphs: tuple[str, str]
    pictures: dict[str, pathlib.Path]
    tables: list[Table]
    albums: list[Album]


@dataclasses.dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
      title: of the whole.
      notes: what the owner of the runs has to say about them, in Markdown; may be empty.
      num_runs: number of runs, as text.
      problems: what a reader has to know first.
      sections: one for each setting.
    """

    title: str
    notes: str
    num_runs: str
    problems: list[Problem]
    sections: list[Section]
