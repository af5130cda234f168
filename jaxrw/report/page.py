"""The report as one HTML page, made of page.html."""

import base64

import jinja2

from jaxrw import figures
from jaxrw.attacks.suite import ATTACKS
from jaxrw.report import words


def render(*, sections, problems, runs, name):
    """One page that needs nothing but itself: pictures are in it, what came from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrw.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.globals |= {
        "words": words,
        "titles": {name: attack.title for name, attack in ATTACKS.items()},
        "figures": figures.FIGURES,
        "embedded": _embedded,
    }
    return environment.get_template("page.html").render(
        sections=sections, problems=problems, runs=runs, name=name
    )


def _embedded(path):
    """A PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
