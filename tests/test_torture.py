"""A short form of helpers/torture.py."""

import os
import pathlib
import re
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).parent / "helpers" / "torture.py"


def test_a_run_killed_at_random_moments_ends_the_same():
    """Three kills; `python tests/helpers/torture.py` does fifty."""
    command = [sys.executable, "-W", "ignore", PROGRAM, "--kills", "3", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"3 kills in \d runs, \d+ s; every run ended identical", done.stdout)
