"""A small run of `launch.py` on the digits in a process of its own, followed by what it logs."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping

ROOT = pathlib.Path(__file__).parents[1]


def epochs(flags: Mapping[str, object], environment: Mapping[str, str]) -> Generator[int, None, None]:
    """Starts a run with 128 training images and yields its process id each time an epoch has been logged.

    Args:
      flags: fields of the config, as in {"optim.num_epochs": 2}.
      environment: added to that of this process.

    Raises:
      RuntimeError: the run has failed.
    """
    with tempfile.TemporaryDirectory() as workdir:
        log, logged = pathlib.Path(workdir) / "metrics.jsonl", 0
        words = [f"--config.{name}={value}" for name, value in {"dataset.train_size": 128, **flags}.items()]
        run = subprocess.Popen(
            [sys.executable, "launch.py", "--config=configs/digits.py", f"--workdir={workdir}", *words],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while run.poll() is None:
                done = log.read_text().count('"kind": "train"') if log.exists() else 0
                if done > logged:
                    logged = done
                    yield run.pid
                time.sleep(0.02)
            if run.returncode:
                raise RuntimeError(f"launch.py ended with status {run.returncode}")
        finally:
            # A run that is ended early first finishes what it compiles, which fills the cache for the next one.
            run.terminate()
            run.wait()
