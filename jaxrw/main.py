"""What a command line does, from its flags to the exit status."""

import logging
import os
import pathlib
import sys
from collections.abc import Sequence

import absl.logging
from absl import flags

from jaxrw import command_line
from jaxrw.system import compilation, preemption
from jaxrw.system.errors import RunError, Stopped, UserError

USAGE = """Adversarial training with instance reweighting, from one command.

    {program} --config FILE [--workdir DIR] [--mode train|evaluate|report|export] [--config.FIELD=VALUE ...]
    {program} --config configs/sweeps/FILE [--workdir DIR] [--list] [--launcher sequential|ray]

train     (default) train, or resume exactly where DIR stopped; then evaluate the last and the best checkpoint
          with --warmup_from RUN, begin after the warm-up of another run, which is the same for every method
evaluate  evaluate a run again: --workdir DIR [--checkpoint last|best]
          or a PyTorch network: --config FILE --checkpoint WEIGHTS.pt|WEIGHTS.safetensors
report    tables and figures of every results.json below DIR, in DIR/report [--markdown FILE]
export    write a run's weights for PyTorch: --workdir DIR [--checkpoint last|best]

Every field that can be set is in configs/base.py. A config file is Python and is executed.
"""

# Modules that need JAX are imported late, so that --help and a misspelt flag answer at once.


def main(argv: Sequence[str], *, launcher: pathlib.Path | None = None) -> int:
    """Runs a command line; prints errors to standard error, each in one line.

    In a run of several processes, a process that fails leaves the run and exits instead of returning.

    Args:
      argv: command line; the program's name first.
      launcher: launch.py, which a sweep then starts for each of its runs; None: the installed package.

    Returns:
      The exit status: 0; 1 for a run that cannot continue; 2 for a mistake of the user or a failure of the system; 75
      for a run that stopped on request and has saved its state; 130 for Ctrl-C while there was nothing to save.
    """
    # Orbax also raises what it logs as an error, and asyncio logs errors that nobody awaited after the first.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    compilation.choose_cpu_kernels()  # Before a config file imports JAX.
    try:
        values = command_line.parse(argv)
        if values.help:
            print(USAGE.format(program="jaxrw" if launcher is None else "python launch.py"))
        else:
            with preemption.raising_on_sigterm():
                _run(values, argv, launcher)
        return 0
    except UserError as error:
        status, message = 2, str(error)
    except RunError as error:
        status, message = 1, str(error)
    except OSError as error:  # The system failed where no module expects it.
        status, message = 2, f"{error.filename or 'the system'}: {error.strerror or error}"
    except Stopped as error:
        status, message = preemption.STATUS, str(error)
    except KeyboardInterrupt:
        status, message = 130, f"stopped{preemption.HINT}"
    print(f"{pathlib.Path(argv[0]).name}: {message}", file=sys.stderr)
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        from jaxrw.system import hosts

        hosts.leave(status)
    return status


def _run(values: flags.FlagValues, argv: Sequence[str], launcher: pathlib.Path | None) -> None:
    if command_line.is_sweep(values.config):
        _run_sweep(values, argv, launcher)
    elif values.mode == "report":
        from jaxrw import report

        print(report.run(values.workdir or "runs", markdown_path=values.markdown))
    elif values.config is None:
        raise UserError("--config is missing; give a file or the name of a shipped one, as --config digits")
    else:
        compilation.enable_cache()
        _join_processes(values)
        workdir = values.workdir or command_line.default_workdir(values)
        if values.mode == "export":
            from jaxrw import export

            for path in export.run(values.config, workdir, checkpoint=values.checkpoint):
                print(path)
        else:
            _train_and_evaluate(values, workdir)


def _run_sweep(values: flags.FlagValues, argv: Sequence[str], launcher: pathlib.Path | None) -> None:
    from jaxrw import sweep

    run_flags = [] if values.mode == "train" else [f"--mode={values.mode}"]
    if values.checkpoint is not None:
        run_flags.append(f"--checkpoint={values.checkpoint}")
    sweep.run(
        values.config,
        command_line.config_path(values),
        values.workdir or "runs",
        launcher=launcher,
        overrides=command_line.run_overrides(argv),
        flags=run_flags,
        only_list=values.list,
        with_ray=values.launcher == "ray",
    )


def _join_processes(values: flags.FlagValues) -> None:
    """Joins the other processes of the run, if there are any; only the first one prints from here on."""
    from jaxrw.system import hosts

    names = ("coordinator_address", "num_processes", "process_id")
    addresses = {name: values[name].value for name in names}
    if values.distributed or any(value is not None for value in addresses.values()):
        hosts.initialize(**addresses)
    if not hosts.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, open until the process ends


def _train_and_evaluate(values: flags.FlagValues, workdir: str) -> None:
    """Trains in mode "train", evaluates in either mode, and prints the table of the run."""
    from jaxrw import evaluate, report, train
    from jaxrw.runs.results import doubts
    from jaxrw.system import hosts

    experiment = None
    with hosts.naming_lost_processes():
        if values.mode == "train":
            experiment = train.run(values.config, workdir, warmup_from=values.warmup_from)
        results = evaluate.run(values.config, workdir, checkpoint=values.checkpoint, experiment=experiment)
    table = report.table({pathlib.Path(workdir).name: results})
    warnings = "".join(f"{line}\n" for line in doubts(results["checkpoints"]))
    print(f"\n{table}\n\n{warnings}accuracies in percent; all of it is in {workdir}")
