"""Runs a sweep, on this machine or on a Ray cluster, and says what has failed."""

import importlib.util
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxrw.sweep import on_ray, sequential, times
from jaxrw.sweep.plan import create_runs, finished
from jaxrw.system.errors import RunError, UserError


def run(
    config: ConfigDict,
    path: pathlib.Path,
    workdir: str,
    *,
    launcher: pathlib.Path | None,
    overrides: Sequence[str] = (),
    flags: Sequence[str] = (),
    only_list: bool = False,
    with_ray: bool = False,
) -> None:
    """Runs the unfinished runs of a sweep, one after the other or on a Ray cluster; a failure does not stop it.

    Each run is a process of its own, so that its memory, compiled programs and crashes do not reach the others.

    Args:
      config: the sweep's, see configs/sweeps/base.py.
      path: the sweep's file; the config files that it names are relative to it.
      workdir: directory of the sweep; each run gets a directory below it.
      launcher: path of launch.py; None: the installed package.
      overrides: flags that set fields of every run.
      flags: further flags of every run, as "--mode=evaluate".
      only_list: print the commands of the unfinished runs instead.
      with_ray: run them on the machines of a Ray cluster, as many at a time as `sweep.resources` allows.

    Raises:
      UserError: the sweep or the config of a run cannot be used; nothing has been run. Or the cluster cannot be used.
      RunError: some runs failed; all others were run.
      Stopped: SIGTERM; the active runs have received it too and have ended.
    """
    if with_ray and not only_list and importlib.util.find_spec("ray") is None:
        raise UserError('--launcher ray needs Ray; install it with pip install "jaxrw[ray]"')
    sweep = create_runs(config, path, workdir, overrides=overrides, flags=flags)
    done = {item: results for item in sweep if (results := finished(item))}
    unfinished = [item for item in sweep if item not in done]
    if only_list:
        for item in unfinished:
            print(item.command(launcher))
        return
    print(f"{len(sweep)} runs below {workdir}, {len(done)} of them done", flush=True)
    if with_ray:
        failed = on_ray.run_all(
            sweep,
            unfinished,
            resources=config.sweep.resources,
            workdir=pathlib.Path(workdir),
            launcher=launcher,
        )
    else:
        failed = sequential.run_all(
            sweep, unfinished, estimated=times.estimate_seconds(done), launcher=launcher
        )
    summary = f"{len(sweep) - len(failed)} of {len(sweep)} runs are done"
    if failed:
        names = "; ".join(f"{item.name} (status {status})" for item, status in failed.items())
        raise RunError(f"{summary}; {len(failed)} failed: {names}; the same command tries them again")
    print(f"{summary}; tables and figures: --mode report --workdir {workdir}")
