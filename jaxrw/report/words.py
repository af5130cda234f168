"""What all formats of the report say, and how: the text of a cell, of a caption, of a table's rows."""

from jaxrw.attacks.suite import ATTACKS, AUTOATTACK
from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report import published, tables
from jaxrw.report.groups import DATASETS, seed_words
from jaxrw.report.trends import ENOUGH

CORRELATION_TITLE = "Figure 4: Pearson's r of similarity and incorrect rate (Eq. 23)"


def runs(number):
    """So many runs."""
    return f"{number} run{'' if number == 1 else 's'}"


NOT_RUN = "⚠"  # the mark of AutoAttack where it was not run


def lacks_autoattack(cell):
    """Whether a cell is one of AutoAttack without a number."""
    return cell.attack == AUTOATTACK and not cell.values


def measured(cell):
    """Text of a cell: mean and sample deviation; "not run" where there is none."""
    if cell.mean is None:
        return "not run"
    return f"{cell.mean:.2f}" + ("" if cell.deviation is None else f" ± {cell.deviation:.2f}")


def trend_words(section):
    """How the trends are to be read."""
    number = section.setting.num_examples
    return (
        "Differences in percentage points, seed by seed; ± is half of their 95 % confidence interval by Student's t "
        f"over the seeds, from {ENOUGH} on, and at least one image. A difference within it is not told apart from "
        "0; of twenty such intervals one misses by chance. Which test images were taken is not in it: with "
        f"{number:,}, that alone gives an accuracy a standard error of up to {50 / number**0.5:.1f} points, and a "
        "difference on the same images less."
    )


def counted(cell):
    """How many seeds a cell has, with a mark where some lack."""
    return f"n={len(cell.values)}{'‡' if cell.missing else ''}" if cell.values else ""


def beside(cell):
    """The paper's number and the difference, for a cell that has to say whose it is; empty where there is none."""
    return "" if cell.published is None else f"paper {published_number(cell)}"


def published_number(cell):
    """The paper's mean and deviation, and the difference in parentheses."""
    mean, deviation = cell.published
    difference = "" if cell.difference is None else f" ({cell.difference:+.2f})"
    return f"{mean:.2f} ± {deviation:.2f}{difference}"


def _missing_words(made):
    """Which seeds lack where, in one line; empty where none does."""
    found = {}
    for row in made.rows:
        for cell in row.cells:
            if cell.missing:
                found.setdefault((row.label, cell.missing), []).append(ATTACKS[cell.attack].title)
    return "; ".join(
        f"{label}: {seed_words(seeds)} of "
        + ("all columns" if len(names) == len(made.attacks) else ", ".join(names))
        for (label, seeds), names in found.items()
    )


def caption(made):
    """What the numbers of a table are."""
    seeds = made.setting.seeds
    words = [
        f"Accuracy in percent on {made.setting.num_examples:,} test images, mean ± sample deviation over n seeds "
        f"(found: {', '.join(map(str, seeds))}). Bold: best of its column, of those with every seed. ↑: higher than "
        "without margin reweighting, over the seeds that both have."
    ]
    if any(cell.published for row in made.rows for cell in row.cells):
        words.append("Paper: its mean ± deviation over five seeds, and measured minus published.")
    if not all(row.cells[-1].values for row in made.rows):
        words.append(
            f"{NOT_RUN} AutoAttack was not run for every row: believe no other robust accuracy without it."
        )
    if _missing_words(made):
        words.append(f"‡ Seeds missing: {_missing_words(made)}.")
    return " ".join([*words, *(f"{note}." for note in made.notes)])


def setting_words(section):
    """The setting's schedule and size, and how far it is from the paper's."""
    setting = section.setting
    words = [
        f"{setting.config['optim.num_epochs']} epochs, {_radii(setting)}, {setting.num_examples:,} test images."
    ]
    if section.differences:
        words.append(
            "Not the paper's settings, so compare the order of its numbers, not their size: "
            f"{differences(section)}."
        )
    elif section.differences is not None:
        words.append("The paper's settings.")
    words += [
        f"The {name} checkpoint {reason}: it has no table."
        for name, reason in tables.left_out(setting).items()
    ]
    return " ".join(words)


def differences(section):
    """Fields that differ from the paper's, with both values; empty where none does or the paper has none."""
    return ", ".join(
        f"{name} {_value(name, mine)} ({'paper' if stated else 'for its tables here'} {_value(name, theirs)})"
        for name, (mine, theirs, stated) in (section.differences or {}).items()
    )


def _radii(setting):
    """The radii of training and evaluation."""
    names = ("attack.eps", "evaluation.eps")
    found = [_value(name, setting.config[name]) for name in names if name in setting.config]
    return f"eps {' in training, '.join(dict.fromkeys(found))}" + (
        " in evaluation" if len(set(found)) > 1 else ""
    )


TRAINING_TITLE = "How the training went"

TRAINING_WORDS = (
    "Accuracy on the training images under the training attack, in percent, in the last epoch of the warm-up and in "
    "the last of all; mean weight and share of the weights below 0.05 in the epochs after the warm-up; minutes of "
    "training, the warm-up included. Means over the runs."
)

TRAINING_COLUMNS = ("warm-up's end", "end", "mean weight", "light weights, %", "minutes", "runs")


def training_rows(section):
    """Text of the training, row by row."""
    return [
        (
            made.label,
            _number(made.warm, 1),
            _number(made.last, 1),
            _number(made.weight, 3),
            _number(made.light, 1),
            _number(made.minutes, 1),
            str(made.number),
        )
        for made in section.training
    ]


def _number(value, digits):
    """A number, or a dash where nothing is known."""
    return "-" if value is None else f"{value:.{digits}f}"


def circumstances(section):
    """Seeds, machines and versions; empty where no results tell."""
    if not section.circumstances:
        return ""
    words = [f"{seed_words(section.setting.seeds).capitalize()}."]
    words += [f"{runs(number)}: {machine}." for machine, number in section.circumstances]
    if section.num_shared_warmups:
        words.append(
            f"{runs(section.num_shared_warmups)} began with the warm-up that another run of their seed had trained: "
            "in it all weights are 1, whatever the method."
        )
    return " ".join(words)


def _value(name, value):
    """Value of a field as people write it: radii and steps in pixel units of 255."""
    if value is None:
        return "all" if name.startswith("dataset.") else "its own"
    if name.endswith((".eps", ".step_size")) and isinstance(value, int | float):
        return f"{255 * value:g}/255"
    return f"{value}"


def trend_rows(section):
    """Text of the trends, row by row."""
    return [
        (
            trend.words,
            trend.table.title.split(":")[0],
            ATTACKS[trend.attack].title,
            f"{trend.published:+.2f}",
            _difference(trend),
            str(trend.num_seeds),
            trend.verdict,
        )
        for trend in section.trends
    ]


def _difference(trend):
    """What was measured of a trend; a dash where nothing was."""
    if trend.measured is None:
        return "-"
    return f"{trend.measured:+.2f}" + ("" if trend.within is None else f" ± {trend.within:.2f}")


def correlation_words():
    """The paper's r."""
    facts = published.load()["figure4"]
    model, dataset = ARCHITECTURES[facts["model"]].title, DATASETS[facts["dataset"]]
    method = METHODS[facts["method"]].title
    return f"The paper: {facts['r']:.2f} for {model} on {dataset} with {method} adversarial training."


def correlation_rows(section):
    """Text of the r's, row by row."""
    return [
        (label, checkpoint, f"{clean:.3f}", f"{adversarial:.3f}", str(number))
        for label, checkpoint, clean, adversarial, number in section.correlations
    ]
