"""What `import jaxrw` gives: a version, public modules, and a docstring that names them."""

import importlib.metadata
import pathlib
import pydoc
import re
import subprocess
import sys
import tomllib

import jaxrw


def test_public_names():
    assert jaxrw.__version__ == importlib.metadata.version("jaxrw")
    public = {name for name in dir(jaxrw) if not name.startswith("_")}
    assert public == set(re.findall(r"^    jaxrw\.(\w+) ", jaxrw.__doc__, re.MULTILINE))
    for name in public:
        assert getattr(jaxrw, name).__doc__, name


def test_help_shows_what_it_is_and_its_modules():
    text = pydoc.plain(pydoc.render_doc(jaxrw))
    for words in ("adversarial training", "jaxrw.attacks", "jaxrw.margins", jaxrw.__version__):
        assert words in text


def test_importing_it_does_not_import_jax():
    """launch.py answers --help at once, and chooses kernels before JAX reads its flags."""
    code = "import sys, jaxrw, launch; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_folder_is_shipped():
    """`make wheel` would find one that is missing only if its programs import it."""
    root = pathlib.Path(jaxrw.__file__).parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(root) for path in (root / "jaxrw").rglob("*.py")}
    configs = {"jaxrw.configs", "jaxrw.configs.sweeps"}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | configs


def test_the_citation_has_the_version_of_the_package():
    root = pathlib.Path(__file__).parent.parent
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
