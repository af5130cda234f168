"""The report's tables in LaTeX."""

from jaxrw.report import words
from jaxrw.report.terminal import TITLES

_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "‡": r"$\ddagger$",
    "⚠": r"\textbf{!}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def render(sections):
    """All tables for a paper that loads booktabs."""
    return "% Needs \\usepackage{booktabs}.\n\n" + "\n\n".join(
        _table(made) for section in sections for made in section.tables
    )


def _table(made):
    """Two lines a row: what was measured, and the paper's number in small type."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(made.title)}. {_tex(words.caption(made))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(made.attacks)}}}",
        r"\toprule",
        " & ".join(["", *(TITLES[attack] for attack in made.attacks)]) + r" \\",
        r"\midrule",
    ]
    for row in made.rows:
        cells = []
        for cell in row.cells:
            text = _tex(words.measured(cell))
            text = rf"\textbf{{{text}}}" if cell.best else text
            cells.append(
                text + (r"$\uparrow$" if cell.improved else "") + (r"$\ddagger$" if cell.missing else "")
            )
        lines.append(" & ".join([_tex(row.label), *cells]) + r" \\")
        if any(cell.published for cell in row.cells):
            small = [
                rf"{{\scriptsize {_tex(words.beside(cell))}}}" if words.beside(cell) else ""
                for cell in row.cells
            ]
            lines.append(" & ".join(["", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _tex(text):
    """Text whose characters mean nothing to TeX."""
    return "".join(_LATEX.get(character, character) for character in text)
