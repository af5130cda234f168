"""Runs docs/tutorial.ipynb and stores its outputs in it: `make notebook`."""

import base64
import hashlib
import io
import os
import pathlib
import re
import tempfile

import nbclient
import nbformat
from PIL import Image
from traitlets.config import Config

ROOT = pathlib.Path(__file__).parents[2]
PATH = ROOT / "docs" / "tutorial.ipynb"

# What printed lines say about the speed of a machine: lines of progress, and how fast each epoch was.
_SPEED = re.compile(
    r"^.*(?:compiling the training step|all steps done|% done,|: step [\d,]+ of|\d of [\d,]+ images$).*\n"
    r"|  [\d.e+]+ images/s",
    re.MULTILINE,
)


def read():
    """The notebook as it is stored."""
    return nbformat.read(PATH, as_version=4)


def executed_cells(notebook):
    """Cells of code without the one that installs."""
    return [
        cell for cell in notebook.cells if cell.cell_type == "code" and not cell.source.startswith("%pip")
    ]


def fingerprint(notebook):
    """Digest of the code that the outputs are of."""
    return hashlib.sha256("\0".join(cell.source for cell in executed_cells(notebook)).encode()).hexdigest()


def run(notebook, directory, *, seconds):
    """Executes the cells in a directory; a cell that fails raises nbclient's CellExecutionError."""
    # Asked for by jupyter_core; the package of this tree; no history in the home directory.
    os.environ |= {
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(directory / ".ipython"),
    }
    resources = {"metadata": {"path": str(directory)}}
    # Files as sockets, because a kernel warns of an unencrypted network.
    config = Config(ConnectionFileMixin={"transport": "ipc", "ip": str(directory / "socket")})
    client = nbclient.NotebookClient(
        notebook,
        config=config,
        timeout=seconds,
        resources=resources,
        record_timing=False,
        coalesce_streams=True,
    )
    with client.setup_kernel():
        for cell in executed_cells(notebook):
            client.execute_cell(cell, notebook.cells.index(cell))


def store(notebook):
    """Writes the notebook with its outputs, and the digest of the code that they are of."""
    for cell in executed_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _SPEED.sub("", output.text)
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = _with_few_colors(png)
    notebook.metadata = {
        "code_of_outputs": fingerprint(notebook),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    nbformat.write(notebook, PATH)


def _with_few_colors(png):
    """Picture of a third of the size that looks the same; both in base64."""
    file, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    tutorial = read()
    with tempfile.TemporaryDirectory() as elsewhere:
        run(tutorial, pathlib.Path(elsewhere), seconds=3600)
    store(tutorial)
