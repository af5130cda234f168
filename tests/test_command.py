"""The installed command `jaxrw`, away from the repository: configs by name, missing extras, what the wheel holds."""

import pathlib
import subprocess
import sys
import tomllib

import pytest
from helpers.flags import TINY

import jaxrw.main
from jaxrw import command_line

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["digits", "configs/digits.py", "digits.py"])
def test_a_shipped_config_is_found_by_name(name, elsewhere):
    for arguments in ([f"--config={name}"], ["--config", name]):
        values = command_line.parse(["jaxrw", *arguments, "--workdir=digits", "--config.seed=3"])
        assert (values.config.dataset.name, values.config.seed, values.workdir) == ("digits", 3, "digits")
        assert command_line.default_workdir(values) == "runs/digits-ours_mail-3"


def test_a_shipped_sweep_is_found_by_name(elsewhere, capsys):
    assert jaxrw.main.main(["jaxrw", "--config=sweeps/table8", "--list"]) == 0
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[0] == "jaxrw"
    config = first[1].removeprefix("--config=")
    assert command_line.parse(["jaxrw", f"--config={config}"]).config.dataset.name == "cifar10"


def test_a_file_of_ones_own_comes_first_and_may_import_the_shipped_ones(elsewhere):
    text = "from configs import base\ndef get_config():\n    c = base.get_config()\n    c.seed = 7\n    return c\n"
    (elsewhere / "digits.py").write_text(text)
    assert command_line.parse(["jaxrw", "--config=digits.py"]).config.seed == 7


def test_a_directory_of_a_shipped_name_hides_it_not(elsewhere):
    (elsewhere / "digits").mkdir()
    assert command_line.parse(["jaxrw", "--config=digits"]).config.dataset.name == "digits"


def test_an_unknown_name_lists_the_shipped_ones(elsewhere, capsys):
    assert jaxrw.main.main(["jaxrw", "--config=digit"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxrw: --config digit cannot be read")
    assert "wrn_c100" in err


def test_it_trains_from_an_empty_directory(elsewhere):
    """As a process, whose own runs of a sweep start with it too."""
    (elsewhere / "two.py").write_text(
        "from configs.sweeps import base\n"
        "def get_config():\n"
        "    config = base.get_config()\n"
        f"    config.sweep.configs = ({str(ROOT / 'configs' / 'digits.py')!r},)\n"
        "    config.sweep.variants = base.methods('standard')\n"
        "    config.sweep.seeds = (0,)\n"
        "    return config\n"
    )
    command = [sys.executable, "-m", "jaxrw", "--config=two.py", *TINY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 runs are done" in done.stdout
    assert (elsewhere / "runs" / "digits" / "standard-0" / "results.json").exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import jaxrw; jaxrw.report", "ImportError: jaxrw.report needs ml_collections"),
        (
            "import sys, jaxrw.__main__; sys.exit(jaxrw.__main__.main())",
            "jaxrw: training needs ml_collections",
        ),
        ("import jaxrw; jaxrw.attacks, jaxrw.networks, jaxrw.torch_weights, jaxrw.objectives", ""),
    ],
)
def test_a_missing_extra_is_named(program, words):
    """As if only the core was installed, but for what the core's own libraries bring: absl, orbax and SciPy."""
    modules = [
        "ml_collections",
        "jinja2",
        "matplotlib",
        "sklearn",
        "tensorflow_datasets",
        "PIL",
        "tensorboardX",
        "array_record",
    ]
    hiding = f"import sys; sys.modules.update(dict.fromkeys({modules}))\n"
    done = subprocess.run([sys.executable, "-c", hiding + program], capture_output=True, text=True, cwd=ROOT)
    if words:
        assert done.returncode != 0
        assert done.stderr.splitlines()[-1].startswith(words)
    else:
        assert done.returncode == 0, done.stderr


def test_every_package_is_in_the_wheel():
    """setuptools is told the packages by name, because configs/ goes into another directory."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "jaxrw").rglob("*.py")}
    found |= {f"jaxrw/{path.parent.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.py")}
    assert {name.replace(".", "/") for name in tools["packages"]} == found
