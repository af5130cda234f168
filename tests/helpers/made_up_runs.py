"""Directories of runs with made-up results.json files."""

import csv

from configs import resnet18_c10
from jaxrw import runs, settings
from jaxrw.attacks.suite import ATTACKS


def put(root, name, *, config=resnet18_c10, seed=0, method="mail", last=(), best=None, data=None, **fields):
    """A run with accuracies by attack, its config changed by fields as `method__tau=3.0`, and its fingerprint."""
    config = config.get_config()
    config.seed, config.method.name = seed, method
    for field, value in fields.items():
        section, field = field.split("__")
        config[section][field] = value
    epoch = config.optim.num_epochs - 1
    checkpoints = {
        kind: accuracy
        if accuracy is None
        else {
            "epoch": epoch,
            "step": 9,
            "num_examples": 10_000,
            "accuracy": dict.fromkeys(ATTACKS) | dict(accuracy),
        }
        for kind, accuracy in (("last", last), ("best", best))
    }
    content = {
        "schema": 1,
        "config": settings.as_json(config),
        **({} if data is None else {"data": data}),
        "train_seconds": 1.0,
        "checkpoints": checkpoints,
    }
    (root / name).mkdir(parents=True)
    runs.write_json(root / name / "results.json", content)
    return content


def cells(workdir):
    """Lines of report.csv of Table 1, by row and attack."""
    with (workdir / "report" / "report.csv").open() as file:
        return {(line["row"], line["attack"]): line for line in csv.DictReader(file) if line["table"] == "1"}
