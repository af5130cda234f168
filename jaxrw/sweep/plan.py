"""Which runs a sweep has, which of them are finished, and whose warm-up each reuses."""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxrw import command_line, runs, settings
from jaxrw.attacks import suite
from jaxrw.networks import torch_weights
from jaxrw.runs.results import Results
from jaxrw.system.errors import UserError

# Sections whose names tell their fields from those of `method`.
_OWN_NAMES = ("objective", "awp", "average", "extra")


@dataclasses.dataclass(eq=False)
class Run:
    """One run of a sweep.

    Attributes:
      name: CONFIG/METHOD-SEED, with other changed fields before the seed.
      workdir: its directory.
      file: its config file.
      config: resolved.
      own_flags: the flags that set its config and mode.
      warmup_from: directory of the run whose warm-up it reuses. If that is its own `workdir`, it keeps its warm-up for
        others. None: it does neither.
    """

    name: str
    workdir: pathlib.Path
    file: pathlib.Path
    config: ConfigDict
    own_flags: list[str]
    warmup_from: pathlib.Path | None = None

    @property
    def flags(self) -> list[str]:
        """The command line after `launch.py`."""
        keeping, reusing = "--config.checkpoint.keep_warmup=True", f"--warmup_from={self.warmup_from}"
        warmup = [keeping if self.warmup_from == self.workdir else reusing] if self.warmup_from else []
        return [*self.own_flags, *warmup, f"--workdir={self.workdir}"]

    def arguments(self, launcher: pathlib.Path | None) -> list[str]:
        """Returns the arguments of Python that run it."""
        return [*(["-m", "jaxrw"] if launcher is None else [str(launcher)]), *self.flags]

    def command(self, launcher: pathlib.Path | None) -> str:
        """Returns the shell command that runs it."""
        program = ["jaxrw"] if launcher is None else ["python", str(_relative(launcher))]
        return shlex.join([*program, *self.flags])


def create_runs(
    config: ConfigDict,
    path: pathlib.Path,
    workdir: str,
    *,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[Run]:
    """Creates the runs of a sweep, seed by seed and within a seed variant by variant; arguments as of `run`.

    Equal runs of two sweeps get the same directory, so sweeps share them.

    Raises:
      UserError: there are no runs, a field does not exist, or no run could use its value.
    """
    fields = config.sweep
    for name in ("configs", "variants", "seeds"):
        if not fields[name]:
            raise UserError(f"sweep.{name} is empty in {path}; see configs/sweeps/base.py")
    if len(set(fields.seeds)) < len(fields.seeds):
        raise UserError(f"sweep.seeds is {tuple(fields.seeds)}; each seed once")
    created: dict[str, Run] = {}
    for seed, variant, file in itertools.product(fields.seeds, fields.variants, fields.configs):
        file = _relative(path.parent / file)
        item = _create_run(file, variant, seed, [*overrides, *flags], pathlib.Path(workdir))
        if item.name in created:
            raise UserError(f"sweep.variants in {path} has {item.name} twice")
        created[item.name] = item
    sweep = list(created.values())
    if fields.get("share_warmup") and not flags:
        share_warmups(sweep)
    return sweep


def finished(item: Run) -> Results | None:
    """Returns the results of a run, or None if it has to be run.

    They count if they are of its very config, trained to its end, and have all accuracies that it measures.
    """
    results = runs.read_results(item.workdir)
    if results is None or not results["checkpoints"].get("last") or not _has_files(item, results):
        return None
    checkpoints, attacks = results["checkpoints"], item.config.evaluation.attacks
    unasked = {f"evaluation.{field}" for field in suite.unasked_settings(attacks)}
    if "--mode=evaluate" in item.own_flags:
        unasked.add("evaluation.selection_steps")  # Training alone reads it.
    configs = results["config"], settings.as_json(item.config)
    effects = (settings.with_effect(settings.completed(settings.flatten(config))) for config in configs)
    found, wanted = (
        {name: value for name, value in fields.items() if name not in unasked} for fields in effects
    )
    named = [value for name, value in checkpoints.items() if f"--checkpoint={name}" in item.own_flags]
    if None in named:
        return None  # The run itself says why there is no such checkpoint.
    accuracies = [value["accuracy"] for value in named or checkpoints.values() if value]
    places = [config["dataset"].get("data_dir") for config in configs]
    asked = suite.CORRUPTIONS in attacks
    is_finished = (
        found == wanted
        and (not asked or len({config["evaluation"].get("corruptions_dir") for config in configs}) == 1)
        # Only the run itself can tell whether images of a user that lie elsewhere are the same.
        and (item.config.dataset.name != "folder" or places[0] == places[1])
        and runs.results.is_trained(results, item.config.optim.num_epochs)
        and all(values.get(attack) is not None for values in accuracies for attack in attacks)
    )
    return results if is_finished else None


def _has_files(item: Run, results: Results) -> bool:
    """Returns whether a run has the files besides results.json that its flags ask for."""
    names = [name for name, value in results["checkpoints"].items() if value]
    chosen = [name for name in names if f"--checkpoint={name}" in item.own_flags] or names
    if "--mode=export" in item.own_flags:
        steps = {name: torch_weights.saved_step(item.workdir / f"{name}.safetensors") for name in chosen}
        if any(step != results["checkpoints"][name]["step"] for name, step in steps.items()):
            return False
    wanted: list[str] = []
    if item.config.evaluation.save_adversarial:
        attacks = [name for name in item.config.evaluation.attacks if suite.ATTACKS[name].is_attack]
        wanted += [runs.results.adversarial_file(name, attack) for name in chosen for attack in attacks]
    return all((item.workdir / name).exists() for name in wanted)


def share_warmups(sweep: list[Run], failed: Collection[Run] = ()) -> None:
    """Assigns to each run the run whose warm-up it reuses.

    That is the first run with the same warm-up that has kept it, or else the first that can still keep it and has not
    failed.
    """
    groups = collections.defaultdict(list)
    for item in sweep:
        item.warmup_from = None
        # A warm-up that is longer than its run never ends, so nothing can begin after it.
        if 0 < item.config.method.warmup_epochs <= item.config.optim.num_epochs:
            shared = runs.warmup.shared_fields(settings.flatten(settings.as_json(item.config)))
            groups[json.dumps(shared, sort_keys=True)].append(item)
    for group in groups.values():
        kept = [item for item in group if runs.warmup.is_kept(item.workdir)]
        unfinished = [item for item in group if not (item.workdir / "results.json").exists()]
        beginning = [item for item in unfinished if not _is_beyond_warmup(item)]
        sources = kept + [item for item in beginning if item not in failed]
        if len(group) > 1 and sources:
            for item in (*beginning, sources[0]):
                item.warmup_from = sources[0].workdir


def _is_beyond_warmup(item: Run) -> bool:
    """Returns whether a run has trained an epoch after its warm-up, so that it can neither keep nor reuse one."""
    end = item.config.method.warmup_epochs
    return any(line["kind"] == "train" and line["epoch"] >= end for line in runs.read_metrics(item.workdir))


def _create_run(
    file: pathlib.Path, variant: dict[str, Any], seed: int, more_flags: list[str], workdir: pathlib.Path
) -> Run:
    """Creates a run; resolves its config and checks it as launch.py would."""
    unchanged = settings.flatten(_resolve([f"--config={file}"]).to_dict())
    changes = {
        field: value
        for field, value in settings.flatten(variant).items()
        if field == "method.name" or field not in unchanged or unchanged[field] != value
    }
    changed_flags = [f"--config.{field}={value}" for field, value in changes.items()]
    own_flags = [f"--config={file}", *changed_flags, f"--config.seed={seed}", *more_flags]
    config = _resolve(own_flags)
    settings.check(config, num_devices=1)
    changes.pop("method.name", None)
    words = [config.method.name, *(_describe(field, value) for field, value in changes.items())]
    name = f"{file.stem}/{re.sub('[^A-Za-z0-9_.-]+', '_', '-'.join(words))}-{seed}"
    return Run(name, workdir / name, file, config, own_flags)


def _describe(field: str, value: object) -> str:
    """Returns a changed field as part of a run's name: trades, tau_3.0, awp_gamma_0.01."""
    section, _, name = field.rpartition(".")
    if name == "name" and section in ("objective", "average"):
        return str(value)
    return f"{section}_{name}_{value}" if section in _OWN_NAMES else f"{name}_{value}"


def _resolve(own_flags: list[str]) -> ConfigDict:
    return command_line.parse(["launch.py", *own_flags]).config


def _relative(path: pathlib.Path) -> pathlib.Path:
    """Returns the path from the current directory, or the absolute path if that is two levels up or more."""
    path = pathlib.Path(os.path.relpath(path))
    return path.resolve() if path.parts[:2] == ("..", "..") else path
