"""Adversarial training with instance reweighting, from one command: `python launch.py --help`."""

import pathlib
import sys
from collections.abc import Sequence

import jaxrw.main
from jaxrw.system.errors import print_unraisable


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns its exit status, see `jaxrw.main.main`."""
    return jaxrw.main.main(argv, launcher=pathlib.Path(__file__))


if __name__ == "__main__":
    sys.unraisablehook = print_unraisable
    sys.exit(main(sys.argv))
