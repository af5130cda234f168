"""Adversarial training with instance reweighting, from one command.

    python launch.py --config FILE [--workdir DIR] [--mode train|evaluate|report|export] [--config.FIELD=VALUE ...]
    python launch.py --config configs/sweeps/FILE [--workdir DIR] [--list]

train     (default) train, or go on exactly where DIR stopped; then evaluate the last and the best checkpoint
          with --warmup_from RUN, begin after the warm-up of another run, which is the same for every method
evaluate  evaluate a run again: --config FILE --workdir DIR [--checkpoint last|best]
          or a PyTorch network: --config FILE --checkpoint WEIGHTS.pt|WEIGHTS.safetensors
report    tables and figures of every results.json below DIR, in DIR/report [--markdown FILE]
export    write a run's weights for PyTorch: --config FILE --workdir DIR [--checkpoint last|best]

Every field that can be set is in configs/base.py. A config file is Python and is executed.
"""

import logging
import os
import pathlib
import sys

import absl.logging

from jaxrw import command_line
from jaxrw.system import compilation, preemption
from jaxrw.system.errors import RunError, Stopped, UserError


def main(argv):
    """Run one command line; returns the exit status, see `_status`."""
    status = _status(argv)
    if status and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        from jaxrw.system import hosts

        hosts.leave(status)
    return status


def _status(argv):
    """Run one command line; returns the exit status.

    0; 2 for a user's mistake; 1 for a run that cannot go on; 75 for one that was asked to stop and has saved where it
    stands; 130 for Ctrl-C while there was nothing to save.
    """
    # What orbax logs as an error it raises too, and that is told below; asyncio logs what nobody waited for then.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    compilation.choose_cpu_kernels()  # Before a config file imports JAX.
    try:
        values = command_line.parse(argv)
        if values.help:
            print(__doc__)
        else:
            with preemption.told():
                _run(values, argv)
    except UserError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # what the environment does at a place where nobody expected it
        print(f"launch.py: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"launch.py: {stopped}", file=sys.stderr)
        return preemption.STATUS
    except KeyboardInterrupt:
        print("launch.py: stopped; the same command goes on from what has been saved", file=sys.stderr)
        return 130
    return 0


def _run(values, argv):
    """Do what the flags say."""
    if command_line.is_sweep(values.config):
        _sweep(values, argv)
        return
    # Imported late, so that --help and a misspelt flag answer at once.
    from jaxrw import evaluate, export, report, train
    from jaxrw.system import hosts

    if values.mode == "report":
        print(report.run(values.workdir or "runs", markdown_path=values.markdown))
        return
    if values.config is None:
        raise UserError("--config is missing; give a file, as --config configs/digits.py")
    compilation.keep_programs()
    _join_hosts(values)
    workdir = values.workdir or command_line.default_workdir(values)
    if values.mode == "export":
        for path in export.run(values.config, workdir, checkpoint=values.checkpoint):
            print(path)
        return
    with hosts.told():
        parts = (
            train.run(values.config, workdir, warmup_from=values.warmup_from)
            if values.mode == "train"
            else None
        )
        results = evaluate.run(values.config, workdir, checkpoint=values.checkpoint, parts=parts)
    print(
        f"\n{report.table({pathlib.Path(workdir).name: results})}\n\naccuracies in percent; all of it is in {workdir}"
    )


def _sweep(values, argv):
    """Run what is missing of a sweep, or print it."""
    from jaxrw import sweep

    if values.mode == "report":
        raise UserError("--mode report takes no --config; give --workdir, the directory of all runs")
    sweep.run(
        values.config,
        command_line.config_path(values),
        values.workdir or "runs",
        launcher=pathlib.Path(__file__),
        overrides=command_line.run_overrides(argv),
        flags=[
            f"--{name}={value}"
            for name, value in (("mode", values.mode), ("checkpoint", values.checkpoint))
            if value not in (None, "train")
        ],
        only_list=values.list,
    )


def _join_hosts(values):
    """Where several processes are one run, join them; the first of them alone tells about it."""
    from jaxrw.system import hosts

    where = {name: values[name].value for name in ("coordinator_address", "num_processes", "process_id")}
    if values.distributed or any(value is not None for value in where.values()):
        hosts.initialize(**where)
    if not hosts.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends


def _print_unless_told(unraisable):
    """An error that nobody can catch; when a checkpoint fails, its other arrays fail too, after nobody listens."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.unraisablehook = _print_unless_told
    sys.exit(main(sys.argv))
