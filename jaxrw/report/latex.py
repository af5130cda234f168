"""The report's tables in LaTeX."""

from jaxrw.attacks.suite import ATTACKS
from jaxrw.report import words

_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "‡": r"$\ddagger$",
    "⚠": r"\textbf{!}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}

# Columns from which on a table needs smaller type for two columns of text.
_MANY = 7


def render(sections):
    """All tables for a paper of two columns that loads booktabs."""
    made = [
        _table(table, section, f"tab:jaxrw-{number}-{place}")
        for number, section in enumerate(sections, start=1)
        for place, table in enumerate(section.tables, start=1)
    ]
    return "% Needs \\usepackage{booktabs}.\n\n" + "\n\n".join(made)


def _table(made, section, label):
    """Two lines a row: what was measured, and the paper's number in small type."""
    # LaTeX numbers its tables itself.
    title = f"As the paper's {made.title}" if made.number else f"{section.title}: {made.title}"
    caption = f"{title}. {words.setting_words(section)} {words.caption(made)}"
    lines = [
        r"\begin{table*}",
        rf"\centering\{'footnotesize' if len(made.attacks) < _MANY else 'scriptsize'}\setlength{{\tabcolsep}}{{3pt}}",
        rf"\caption{{{_tex(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * len(made.attacks)}}}",
        r"\toprule",
        " & ".join(["", *(ATTACKS[attack].title for attack in made.attacks)]) + r" \\",
        r"\midrule",
    ]
    for row in made.rows:
        lines.append(" & ".join([_tex(row.label), *map(_measured, row.cells)]) + r" \\")
        if any(cell.published for cell in row.cells):
            lines.append(" & ".join([r"\quad{\tiny paper (difference)}", *map(_beside, row.cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}"])


def _measured(cell):
    """Mean and deviation with their marks; how many seeds where some lack, as the caption has the others."""
    text = _tex(f"{words.NOT_RUN} " if words.lacks_autoattack(cell) else "") + _tex(words.measured(cell))
    text = rf"\textbf{{{text}}}" if cell.best else text
    count = rf"$^{{\ddagger}}_{{n={len(cell.values)}}}$" if cell.missing else ""
    return text + (r"$\uparrow$" if cell.improved else "") + count


def _beside(cell):
    """The paper's number and the difference, in small type."""
    if cell.published is None:
        return ""
    return rf"{{\tiny {_tex(words.published_number(cell)).replace('(-', '($-$')}}}"


def _tex(text):
    """Text whose characters mean nothing to TeX."""
    return "".join(_LATEX.get(character, character) for character in text)
