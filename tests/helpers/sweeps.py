"""Sweeps with a launcher that trains nothing, and what they have run."""

import json
import pathlib

from ml_collections import ConfigDict

from jaxrw import sweep

ROOT = pathlib.Path(__file__).parents[2]

# Replaces launch.py: writes the files of a run, records that it ran, and fails or waits as the environment says.
LAUNCHER = """
import json, os, pathlib, sys, time
from jaxrw import command_line  # and nothing that imports JAX, which takes seconds
values = command_line.parse(sys.argv)
workdir, config = pathlib.Path(values.workdir), values.config
with open("ran", "a") as file:
    print(values.workdir, file=file)
if (workdir.name in os.environ.get("FAILING", "").split()):
    sys.exit(3)
if os.environ.get("WAITING"):
    pathlib.Path("waiting").touch()
    time.sleep(60)
if values.warmup_from and not (pathlib.Path(values.warmup_from) / "warmup").exists():
    sys.exit(2)
if config.checkpoint.keep_warmup:
    (workdir / "warmup").mkdir(parents=True)
if (workdir.name in os.environ.get("FAILING_AFTER_WARMUP", "").split()):
    sys.exit(4)
workdir.mkdir(parents=True, exist_ok=True)
place = {"epoch": config.optim.num_epochs - 1, "step": 9, "num_examples": 30}
accuracy = dict.fromkeys(config.evaluation.attacks, 50.0)
checkpoints = {"last": {**place, "accuracy": accuracy}, "best": None}
results = {"schema": 1, "config": json.loads(config.to_json()), "checkpoints": checkpoints, "train_seconds": 100}
results |= {"warmup_from": values.warmup_from}
(workdir / "results.json").write_text(json.dumps(results))
"""

VARIANTS = ({"method": {"name": "mail"}}, {"method": {"name": "ours_mail", "tau": 3.0}})
NAMES = [
    "digits/mail-0",
    "digits/ours_mail-tau_3.0-0",
    "digits/mail-1",
    "digits/ours_mail-tau_3.0-1",
]
SHARING = {"share_warmup": True, "variants": (*VARIANTS, {"method": {"name": "gairat"}})}


def config(**fields):
    return ConfigDict({"sweep": {"configs": ("digits.py",), "variants": VARIANTS, "seeds": (0, 1)} | fields})


def run(config, **settings):
    sweep.run(config, ROOT / "configs" / "sweep.py", "runs", launcher=pathlib.Path("launcher.py"), **settings)


def ran():
    """Names of the runs that the launcher ran since the last call."""
    path = pathlib.Path("ran")
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.removeprefix("runs/") for line in lines]


def change_results(name, **values):
    """Changes values in the results.json of a run."""
    path = pathlib.Path("runs", name, "results.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
