"""What README.md tells people to type."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_it_begins_with_the_two_commands():
    commands = re.findall(r"^    make (\w+)", TEXT, re.MULTILINE)
    assert commands == ["train", "test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(commands) <= set(targets)


def test_every_file_and_field_it_names_is_there():
    for path in re.findall(r"configs/\w+\.py", TEXT):
        assert (ROOT / path).exists(), path
    from configs import base
    from configs.sweeps import base as sweep
    from jaxrw.command_line import field_names

    fields = set(field_names(base.get_config()) + field_names(sweep.get_config()))
    named = re.findall(r"--config\.([a-z_.]+)=", TEXT) + re.findall(
        r"`((?:dataset|method|optim|evaluation|attack|model)\.\w+)[`/]", TEXT
    )
    assert len(named) > 5
    assert set(named) <= fields


def test_its_python_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    block = block.replace("batch_size=500", "batch_size=500, num_steps=3, num_queries=5")
    images = np.random.RandomState(0).rand(6, 8, 8, 1).astype(np.float32)
    parameters = jnp.asarray(np.random.RandomState(1).randn(64, 10), jnp.float32)
    labels = np.asarray((images.reshape(6, -1) @ parameters).argmax(1))
    exec(block, {"parameters": parameters, "images": images, "labels": labels})
    assert "'apgd-ce':" in capsys.readouterr().out


def test_no_placeholder_is_left():
    for path in (ROOT / "README.md", *sorted((ROOT / "configs").glob("*.py"))):
        assert not re.findall(r"\b[A-Z]+_(?:TIME|TABLE)\b", path.read_text()), path
