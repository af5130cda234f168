"""Differences between two rows of tables, over seeds and images, corrected for their number."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; importing scipy.stats takes a second

from jaxrw.report.evidence.tables import Accuracy
from jaxrw.runs.packed import unpack

# Fewer seeds give no useful interval: two agree to a tenth of a point by chance.
MIN_SEEDS = 3

# Below it a corrected p counts. Its complement is the coverage of the intervals.
LEVEL = 0.05

# A difference of exactly one image is at the level, and rounding must not decide it.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Difference:
    """An accuracy minus another in percentage points, positive iff the first is higher.

    Attributes:
      by_seed: of the seeds that both have; empty if there are none.
      half_interval: half of the 95 % confidence interval of the mean; None for fewer than `MIN_SEEDS` seeds.
      p_value: probability of a mean at least as far from 0 if there were no difference; None as above.
      over_images: whether both are over the choice of the test images too, not over the seeds alone.
    """

    by_seed: dict[int, float]
    half_interval: float | None = None
    p_value: float | None = None
    over_images: bool = False

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if there are none."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A difference that a table tells.

    Attributes:
      words: the two rows.
      attack: column.
      difference: of the first row from the second.
      was_run: whether both rows have any accuracy.
      table: number of the paper's table that claims it; None: the paper does not.
      published: the paper's difference; None: the paper claims none.
      corrected: p-value after Holm's correction; None if there is no p-value.
    """

    words: str
    attack: str
    difference: Difference
    was_run: bool
    table: int | None = None
    published: float | None = None
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        """What the seeds can tell.

        Of a claim "seen", "refuted at this scale" or "not decided", else "higher", "lower" or "not significant".
        """
        open_end = "not significant" if self.published is None else "not decided"
        mean = self.difference.mean
        if mean is None:
            return "no seed in common" if self.was_run else "not run"
        if self.corrected is None:
            return f"{open_end}, {'one seed' if len(self.difference.by_seed) == 1 else 'two seeds'}"
        if self.corrected > LEVEL - _ROUNDING:
            return open_end
        if self.published is None:
            return "higher" if mean > 0 else "lower"
        return "seen" if mean * self.published > 0 else "refuted at this scale"


def compare(first: Accuracy, second: Accuracy, *, num_examples: int) -> Difference:
    """Computes the difference of two cells seed by seed: runs of one seed share data order and first weights.

    With which images are correct, for every seed that both have, the interval and the p-value are over seeds and
    images, see `over_seeds_and_images`. They are never narrower and smaller than those over the seeds alone, which are
    Student's: so knowing the images makes no difference easier to find, and losing those of one run may.

    Args:
      first: minuend.
      second: subtrahend.
      num_examples: number of test images.
    """
    seeds = sorted(first.values.keys() & second.values.keys())
    by_seed = {seed: first.values[seed] - second.values[seed] for seed in seeds}
    if len(seeds) < MIN_SEEDS:
        return Difference(by_seed)
    values = list(by_seed.values())
    mean, degrees = statistics.fmean(values), float(len(seeds) - 1)
    # Seeds that agree by chance are not certain of a single image.
    smallest = 100 / num_examples / student_quantile(degrees)
    estimates = [(max(statistics.stdev(values) / math.sqrt(len(seeds)), smallest), degrees)]
    if all(seed in cell.correct for seed in seeds for cell in (first, second)):
        flags = [
            np.stack([unpack(cell.correct[seed], num_examples) for seed in seeds]).astype(float)
            for cell in (first, second)
        ]
        error, degrees = over_seeds_and_images(100 * (flags[0] - flags[1]))
        estimates.append((max(error, smallest), degrees))
    return Difference(
        by_seed,
        half_interval=max(student_quantile(df) * error for error, df in estimates),
        p_value=max(2 * float(stdtr(df, -abs(mean) / error)) for error, df in estimates),
        over_images=len(estimates) > 1,
    )


def student_quantile(degrees: float) -> float:
    """Returns how many standard errors half of a 95 % interval has by Student's t, at so many degrees of freedom."""
    return float(stdtrit(degrees, 1 - LEVEL / 2))


def over_seeds_and_images(differences: np.ndarray) -> tuple[float, float]:
    """Computes the standard error of a mean over seeds and images, both drawn at random, and its degrees of freedom.

    Every seed sees the same images, so seeds and images are crossed. With the mean squares of a two-way analysis of
    variance, the variance of the mean is estimated without bias by (MS_seeds + MS_images - MS_rest) / (S N); the
    degrees of freedom are Satterthwaite's (1946), but not fewer than the S - 1 of the seeds alone. A bootstrap over
    both counts the rest three times (Owen 2007), and with few seeds its percentiles are too near to each other.

    Args:
      differences: [S, N] of S seeds, at least 2, and N images, at least 2.

    Returns:
      The standard error, at least 0, in the unit of the differences, and the degrees of freedom, at least S - 1.
    """
    size = differences.shape
    mean, by_seed, by_image = differences.mean(), differences.mean(1), differences.mean(0)
    seeds = size[1] * float(((by_seed - mean) ** 2).sum()) / (size[0] - 1)
    images = size[0] * float(((by_image - mean) ** 2).sum()) / (size[1] - 1)
    rest = differences - by_seed[:, None] - by_image + mean
    degrees = (size[0] - 1) * (size[1] - 1)
    noise = float((rest**2).sum()) / degrees
    # Where images seem to differ by less than chance, they add nothing.
    total = seeds + max(images - noise, 0.0)
    if total == 0:
        return 0.0, float(size[0] - 1)
    parts = seeds**2 / (size[0] - 1) + images**2 / (size[1] - 1) + noise**2 / degrees
    return math.sqrt(total / differences.size), max(total**2 / parts, float(size[0] - 1))


def correct_for_number(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons of one table with their p-values after Holm's correction for all of them.

    Those without a p-value count too, so that an attack that is left out makes no other difference easier to find.
    """
    known = {i: p for i, c in enumerate(comparisons) if (p := c.difference.p_value) is not None}
    corrected = dict(zip(known, holm(list(known.values()), len(comparisons)), strict=True))
    return [dataclasses.replace(c, corrected=corrected.get(i)) for i, c in enumerate(comparisons)]


def holm(p_values: Sequence[float], number: int) -> list[float]:
    """Returns p-values that hold for all comparisons together, at most 1 (Holm 1979).

    Args:
      p_values: in any order.
      number: of all comparisons, at least of the p-values; those without one count as 1.

    >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03], 3)]
    [0.06, 0.03, 0.06]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (number - rank) * p_values[place]))
        corrected[place] = highest
    return corrected
