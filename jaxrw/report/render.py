"""The document as Markdown, LaTeX and HTML, each made by its template; what came from files is escaped."""

import base64
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jinja2
from markupsafe import Markup

from jaxrw.report.document import Document

_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "‡": r"$\ddagger$",
        "⚠": r"\textbf{!}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    | {character: f"\\{character}" for character in "&%$#_{}"}
)

_MARKDOWN = str.maketrans(
    {"\n": " ", "&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"}
    | {character: f"\\{character}" for character in "|_*["}
)


def render_markdown(document: Document, directory: pathlib.Path) -> str:
    """Returns the report in Markdown, with pictures by their paths relative to `directory`."""

    def link(path: pathlib.Path) -> Markup:
        return Markup(pathlib.Path(os.path.relpath(path, directory)).as_posix())

    environment = _create_environment(finalize=_finalizing(escape_markdown), keep_trailing_newline=True)
    return environment.get_template("report.md.jinja").render(document=document, link=link)


def render_latex(document: Document) -> str:
    """Returns the tables of accuracies in LaTeX, for a paper of two columns that loads booktabs."""
    environment = _create_environment(
        finalize=_finalizing(escape_tex),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    return environment.get_template("report.tex.jinja").render(document=document).rstrip("\n")


def render_page(document: Document) -> str:
    """Returns one HTML page that needs no other file: pictures are in it."""
    environment = _create_environment(autoescape=True)
    return environment.get_template("page.html").render(document=document, embed=_embed)


def escape_markdown(text: str) -> str:
    """Returns text without characters that Markdown or HTML interprets."""
    return text.translate(_MARKDOWN)


def escape_tex(text: str) -> str:
    """Returns text without characters that TeX interprets; a minus after a parenthesis becomes a proper one."""
    return text.translate(_TEX).replace("(-", "($-$")


def _finalizing(escape: Callable[[str], str]) -> Callable[[object], str]:
    """Returns a function that escapes every value in a template, but not Markup."""
    return lambda value: value if isinstance(value, Markup) else escape(str(value))


def _create_environment(**options: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrw.report", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def _embed(path: pathlib.Path) -> str:
    """Returns a PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
