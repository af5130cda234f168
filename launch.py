"""Train, evaluate or report: `python launch.py --config FILE [--workdir DIR] [--mode train|evaluate|report]`.

Any field of the config can be set: `--config.method.name=mail`. README.md has examples.
"""

import pathlib
import sys

from absl import flags, logging
from ml_collections import config_flags

from jaxrw.errors import RunError, UserError

MODES = ("train", "evaluate", "report")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Python file with get_config(); it is executed.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; for --mode report, of all runs.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "train goes on where DIR stopped, then evaluates.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "For --mode evaluate: last or best; both without it.")


def main(argv):
    """Parse the command line, run the mode; returns the exit status."""
    logging.set_verbosity(logging.ERROR)
    try:
        _parse(argv)
        _run()
    except UserError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    return 0


def _run():
    """Do what the flags say."""
    # Imported late, so that --help and a misspelt flag answer at once.
    from jaxrw import evaluate, report, train

    if _MODE.value == "report":
        print(report.run(_WORKDIR.value or "runs"))
        return
    if _CONFIG.value is None:
        raise UserError("--config is missing; give a file, as configs/digits.py")
    config, workdir = _CONFIG.value, _WORKDIR.value or _default_workdir()
    if _MODE.value == "train":
        train.run(config, workdir)
    results = evaluate.run(config, workdir, checkpoint=_CHECKPOINT.value)
    print(f"\n{report.table({pathlib.Path(workdir).name: results})}\n\nresults in {workdir}")


def _parse(argv):
    """Parse flags; whatever is wrong with them, or with the config file, becomes one line."""
    try:
        rest = flags.FLAGS(argv)
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        ImportError,
        SyntaxError,
    ) as error:
        words = " ".join(str(error).split())
        raise UserError(words) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no flag; fields are set as --config.FIELD=VALUE")


def _default_workdir():
    """Directory named after config, method and seed."""
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return f"runs/{name}-{_CONFIG.value.method.name}-{_CONFIG.value.seed}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
