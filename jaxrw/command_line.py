"""The command line of launch.py: its flags, and every mistake in them told in one line."""

import difflib
import pathlib
import re

from absl import flags
from ml_collections import config_flags

from jaxrw.system.errors import UserError

MODES = ("train", "evaluate", "report", "export")


def parse(argv):
    """Flags of a command line as attributes: config (None or a ConfigDict), workdir, mode, checkpoint, list, help.

    The config of a sweep has a section `sweep`; overrides of other fields belong to its runs: `run_overrides`.

    Args:
      argv: list of str, the program's name first.

    Raises:
      UserError: whatever is wrong with the flags, the config file or an override, in one line.
    """
    argv = _check_fields(argv)
    values = flags.FlagValues()
    where = {"flag_values": values}
    # Old flags of the same name would linger in absl's global ones, so a command line has its own.
    config_flags.DEFINE_config_file("config", None, "Python file with get_config().", sys_argv=argv, **where)
    flags.DEFINE_string("workdir", None, "Directory of the run; with --mode report, of all runs.", **where)
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", **where)
    flags.DEFINE_string("checkpoint", None, "last, best, or a file of weights.", **where)
    flags.DEFINE_string(
        "warmup_from", None, "Directory of a run whose warm-up this one begins with.", **where
    )
    flags.DEFINE_string("markdown", None, "With --mode report: write its Markdown to this file too.", **where)
    flags.DEFINE_boolean("list", False, "With a sweep: print its missing runs' commands.", **where)
    flags.DEFINE_boolean(
        "distributed", False, "This process is one of several of one run; JAX finds them.", **where
    )
    flags.DEFINE_string(
        "coordinator_address", None, "host:port of process 0, where JAX cannot find it.", **where
    )
    flags.DEFINE_integer("num_processes", None, "How many processes are the run.", **where)
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", **where)
    flags.DEFINE_boolean("help", False, "Say how this is used.", short_name="h", **where)
    try:
        rest = values(argv)
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(values, error)) from error
    except Exception as error:  # overrides of tuples raise whatever their parsing meets
        raise UserError(_one_line(error)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is no flag; fields are set as --config.FIELD=VALUE")
    if values.checkpoint and values.mode not in ("evaluate", "export"):
        raise UserError(f"--checkpoint is for --mode evaluate and export; --mode is {values.mode}")
    if values.markdown and values.mode != "report":
        raise UserError(f"--markdown is for --mode report; --mode is {values.mode}")
    if values.warmup_from and (values.mode != "train" or is_sweep(values.config)):
        raise UserError("--warmup_from is for training one run; a sweep has the field sweep.share_warmup")
    if values.list and not is_sweep(values.config):
        raise UserError("--list is for a sweep, as --config configs/sweeps/table1.py")
    return values


def is_sweep(config):
    """Whether a config is that of a sweep; `config` may be None."""
    return config is not None and "sweep" in config


def run_overrides(argv):
    """Flags of a sweep's command line that set fields of its runs."""
    return [argument for argument in argv if re.match(r"--?(?:no)?config\.(?!sweep\.)", argument)]


def config_path(values):
    """Path of the config file."""
    return pathlib.Path(config_flags.get_config_filename(values["config"]))


def default_workdir(values):
    """Directory below runs/ named after config, method and seed, or after the file of weights that is evaluated."""
    if values.checkpoint not in (None, "last", "best"):
        return f"runs/{pathlib.Path(values.checkpoint).stem}"
    return f"runs/{config_path(values).stem}-{values.config.method.name}-{values.config.seed}"


def _check_fields(argv):
    """Refuse a config file that cannot be used and an override of a field that there is not.

    Returns the command line, without what a sweep leaves to its runs.
    """
    overridden = [match[1] for match in map(re.compile(r"--?(?:no)?config\.([^=]+)").match, argv) if match]
    path = next((path for path in _config_paths(argv)), None)
    if path is None:
        return argv
    values = flags.FlagValues()
    alone = [argv[0], f"--config={path}"]
    config_flags.DEFINE_config_file("config", sys_argv=alone, flag_values=values)
    try:
        values(alone)
        fields = field_names(values.config)
    except OSError as error:
        raise UserError(
            f"--config {path} cannot be read; give a Python file, as configs/digits.py"
        ) from error
    except Exception as error:  # a config file is a program: anything can happen in it
        raise UserError(f"--config {path}: {type(error).__name__}: {_one_line(error)}") from error
    if any(field.startswith("sweep.") for field in fields):
        left = set(run_overrides(argv))
        argv = [argument for argument in argv if argument not in left]
        overridden = [field for field in overridden if field.startswith("sweep.")]
    for field in overridden:
        if field not in fields:
            near = difflib.get_close_matches(field, fields, n=1, cutoff=0)
            raise UserError(f"--config.{field}: there is no such field; did you mean {near[0]}?")
    return argv


def _config_paths(argv):
    """What stands behind --config, as `--config=FILE` or `--config FILE`."""
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        if re.fullmatch(r"--?config", argument) and following:
            yield following
        elif match := re.match(r"--?config=(.+)", argument):
            yield match[1]


def field_names(config, prefix=""):
    """Dotted names of all fields of a config, sections left out."""
    names = []
    for name in config:
        section = hasattr(config[name], "keys")
        names += field_names(config[name], f"{prefix}{name}.") if section else [prefix + name]
    return names


def _wrong_value(values, error):
    """A value of another type than its field's, told by field, value and type."""
    match = re.match(r"flag --config\.([^=]+)=(.*?):", str(error), re.DOTALL)
    if not match:
        return _one_line(error)
    section, _, name = match[1].rpartition(".")
    owner = values.config[section] if section else values.config
    return f"{match[1]} is {match[2]!r}; must be of type {owner.get_type(name).__name__}"


def _one_line(error):
    """What an error says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
