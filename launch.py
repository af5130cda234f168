"""Adversarial training with instance reweighting, from one command.

    python launch.py --config FILE [--workdir DIR] [--mode train|evaluate|report] [--config.FIELD=VALUE ...]

train     (default) train, or go on exactly where DIR stopped; then evaluate the last and the best checkpoint
evaluate  evaluate a run again: --config FILE --workdir DIR [--checkpoint last|best]
report    print a table of every results.json below DIR

Every field that can be set is in configs/base.py. A config file is Python and is executed.
"""

import os
import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from jaxrw.errors import RunError, UserError

MODES = ("train", "evaluate", "report")


def main(argv):
    """Run one command line; returns the exit status: 0, 2 for a user's mistake, 1 for a run that stopped."""
    logging.set_verbosity(logging.ERROR)
    try:
        values = _parse(argv)
        if values.help:
            print(f"{__doc__}\n{values.get_help()}")
        else:
            _run(values)
    except UserError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    return 0


def _run(values):
    """Do what the flags say."""
    # Imported late, so that --help and a misspelt flag answer at once.
    from jaxrw import evaluate, report, train

    if values.mode == "report":
        print(report.run(values.workdir or "runs"))
        return
    if values.config is None:
        raise UserError("--config is missing; give a file, as --config configs/digits.py")
    _keep_compiled_programs()
    workdir = values.workdir or _default_workdir(values)
    if values.mode == "train":
        train.run(values.config, workdir)
    results = evaluate.run(values.config, workdir, checkpoint=values.checkpoint)
    print(f"\n{report.table({pathlib.Path(workdir).name: results})}\n\naccuracies in percent; all of it is in {workdir}")


def _parse(argv):
    """Flags as values; whatever is wrong with them, or with the config file, becomes one line."""
    values = flags.FlagValues()
    where = {"flag_values": values}
    # Old flags of the same name would linger in absl's global ones, so a command line has its own.
    config_flags.DEFINE_config_file("config", None, "Python file with get_config().", sys_argv=argv, **where)
    flags.DEFINE_string("workdir", None, "Directory of the run; with --mode report, of all runs.", **where)
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", **where)
    flags.DEFINE_string("checkpoint", None, "With --mode evaluate: last or best; both without it.", **where)
    flags.DEFINE_boolean("help", False, "Say how this is used.", short_name="h", **where)
    try:
        rest = values(argv)
    except Exception as error:  # a config file is a program: anything can happen in it
        raise UserError(" ".join(str(error).split()) or type(error).__name__) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no flag; fields are set as --config.FIELD=VALUE")
    if values.checkpoint and values.mode != "evaluate":
        raise UserError(f"--checkpoint is for --mode evaluate; --mode is {values.mode}")
    return values


def _default_workdir(values):
    """Directory named after config, method and seed."""
    name = pathlib.Path(config_flags.get_config_filename(values["config"])).stem
    return f"runs/{name}-{values.config.method.name}-{values.config.seed}"


def _keep_compiled_programs():
    """Keep what XLA compiles in ~/.cache/jaxrw, or in $JAX_COMPILATION_CACHE_DIR: the next start is faster."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "jaxrw"))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
