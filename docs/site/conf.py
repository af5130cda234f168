"""What `make docs` builds: a site of the pages as they are, with a navigation and a reference of the public modules.

The pages are written for GitHub and know nothing of Sphinx. docs/reference/ is written from docstrings at each build.
"""

import inspect
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jaxrw

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = pathlib.Path(__file__).parents[2]

# The public modules, as `help(jaxrw)` lists them.
MODULES = re.findall(r"^    jaxrw\.(\w+) ", jaxrw.__doc__ or "", re.MULTILINE)

# Pages by group, each with its title in the navigation.
NAVIGATION = {
    "Start": {"README": "Overview", "docs/tutorial": "Tutorial"},
    "Train": {
        "docs/method": "Methods",
        "docs/configs": "Configs and sweeps",
        "docs/data": "Data",
        "docs/runs": "Runs",
        "docs/logging": "Logging",
    },
    "Evaluate": {
        "docs/models": "Models of your own",
        "docs/evaluation": "Robust accuracy",
        "docs/agreement": "Agreement with the reference",
        "docs/zoo": "Models of RobustBench",
        "RESULTS": "Results",
        "results/protocol": "Protocol of the results",
        "results/controls/README": "Controls",
        "results/controls/protocol": "Protocol of the controls",
        "results/controls/addendum": "Addendum to that protocol",
        "results/controls/dose": "Protocol of two more constants",
        "results/controls/wmmr": "Protocol of WMMR",
        "results/own/README": "Choosing a new weighting",
        "results/own/protocol": "Protocol of that choice",
    },
    "Run it": {
        "docs/performance": "Performance",
        "docs/gpu": "GPU",
        "docs/cloud_tpu": "Cloud TPU",
        "docs/slurm": "Slurm",
        "docs/ray": "Ray",
        "docs/reliability": "Reliability",
    },
    "Reference": {f"docs/reference/{name}": f"jaxrw.{name}" for name in MODULES},
    "Project": {
        "docs/extending": "Extending",
        "CONTRIBUTING": "Contributing",
        "benchmarks/README": "Making it faster",
        "CHANGELOG": "Changelog",
    },
}

project = "jaxrw"
version = release = jaxrw.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "*.md",
    "benchmarks/README.md",
    "docs/*.md",
    "docs/*.ipynb",
    "docs/reference/*.rst",
    "results/controls/README.md",
    "results/controls/addendum.md",
    "results/controls/dose.md",
    "results/controls/protocol.md",
    "results/controls/wmmr.md",
    "results/own/README.md",
    "results/own/protocol.md",
    "results/protocol.md",
]
# Folders that are not searched for pages.
exclude_patterns = [
    ".*",
    "benchmarks/results",
    "build",
    "configs",
    "dist",
    "jaxrw",
    "runs",
    "site",
    "tests",
]

myst_heading_anchors = 6  # as on GitHub
nb_execution_mode = "off"  # The notebook is stored with its outputs.

default_role = "py:obj"  # `name` in a docstring is a link if the name is documented.
highlight_language = "none"  # of blocks that name none
add_module_names = False
autodoc_class_signature = "separated"  # and left out, since a class lists its attributes
autodoc_default_options = {"members": True, "special-members": "__call__", "exclude-members": "__init__"}
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Further args", "params_style")]
napoleon_use_ivar = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"jaxrw {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def setup(app: "Sphinx") -> None:
    """Adds to Sphinx what the pages lack."""
    (ROOT / "docs" / "reference").mkdir(exist_ok=True)
    for name in MODULES:
        (ROOT / "docs" / "reference" / f"{name}.rst").write_text(reference(name))
    app.connect("source-read", add_navigation)


def add_navigation(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Adds the navigation to the first page."""
    if docname == root_doc:
        for group, pages in NAVIGATION.items():
            lines = [f"{title} <{'self' if page == root_doc else page}>" for page, title in pages.items()]
            source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {group}", *lines, "```", ""])


def reference(name: str) -> str:
    """Returns the page of a public module: its docstring, a table of what it has, and all of it in full."""
    module = getattr(jaxrw, name)
    own = [
        key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    ]
    public = {key: getattr(module, key) for key in getattr(module, "__all__", own) if not key.startswith("_")}
    functions = [key for key, value in public.items() if inspect.isfunction(value)]
    classes = [key for key, value in public.items() if inspect.isclass(value)]
    constants = [key for key, value in public.items() if isinstance(value, Mapping | tuple | int)]
    title = f"jaxrw.{name}"
    lines = [title, "=" * len(title), "", f".. automodule:: {module.__name__}", "   :no-members:", ""]
    lines += [".. list-table::", "   :widths: auto", ""]
    for key in functions + classes:
        lines += [f"   * - `{key}`", f"     - {inspect.cleandoc(public[key].__doc__).splitlines()[0]}"]
    for key in constants:
        lines += ["", f".. py:data:: {key}", "", f"   {contents(public[key])}"]
    for key in functions:
        lines += ["", f".. autofunction:: {key}"]
    for key in classes:
        lines += ["", f".. autoclass:: {key}"]
    return "\n".join([*lines, ""])


def contents(constant: Mapping[str, Any] | tuple[Any, ...] | int) -> str:
    """Returns what a constant holds: the keys of a mapping, the items of a tuple, or its value."""
    if isinstance(constant, Mapping | tuple):
        return "Names: " + ", ".join(f"``{item}``" for item in constant)
    return f"Value: ``{constant}``"
