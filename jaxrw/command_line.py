"""The flags of `launch.py` and `jaxrw`. Every mistake in them is a `UserError` of one line."""

import difflib
import importlib
import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import placeholder

from jaxrw.system.errors import UserError, one_line

MODES = ("train", "evaluate", "report", "export")

# What starts the runs of a sweep; the first is the default.
LAUNCHERS = ("sequential", "ray")


def parse(argv: Sequence[str]) -> flags.FlagValues:
    """Parses a command line.

    --config may be the name of a shipped config, as wrn_c100, from any directory. Without --config, --mode evaluate and
    export take the config.json of --workdir. Fields that are floats take fractions, as 8/255. The config of a sweep has
    a section `sweep`. Flags that set other fields are left out of it, because they apply to the runs of the sweep; see
    `run_overrides`.

    Args:
      argv: command line; the program's name first.

    Returns:
      The flags as attributes. `config` is a ConfigDict, or None without --config.

    Raises:
      UserError: a flag, the config file or the value of a field cannot be used.
    """
    argv, values = _with_path_of_config(list(argv)), flags.FlagValues()
    config = _load_config(argv)
    if config is not None:
        argv = _check_fields(argv, config)
    try:
        _define_flags(values, argv, config)
        positional = values(argv)[1:]
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(config, error)) from error
    except Exception as error:  # The value of a tuple is parsed as Python, which can raise anything.
        raise UserError(one_line(error)) from error
    if positional:
        raise UserError(f"{positional[0]!r} is no flag; fields are set as --config.FIELD=VALUE")
    _check_combination(values)
    if values.config is not None and not is_sweep(values.config):
        from jaxrw import settings  # It imports JAX, which --help need not wait for.

        with values.config.unlocked():
            settings.add_fields(values.config)
    return values


def is_sweep(config: ConfigDict | None) -> bool:
    """Returns whether a config describes a sweep, not a run."""
    return config is not None and "sweep" in config


def run_overrides(argv: Sequence[str]) -> list[str]:
    """Returns the flags of a sweep's command line that set fields of its runs."""
    return [argument for argument in argv if re.match(r"--?(?:no)?config\.(?!sweep\.)", argument)]


def config_path(values: flags.FlagValues) -> pathlib.Path:
    """Returns the path of the config file."""
    return pathlib.Path(config_flags.get_config_filename(values["config"]))


def default_workdir(values: flags.FlagValues) -> str:
    """Returns runs/CONFIG-METHOD-SEED, or runs/NAME if a file of weights with that name is evaluated."""
    if values.checkpoint not in (None, "last", "best"):
        return f"runs/{pathlib.Path(values.checkpoint).stem}"
    return f"runs/{config_path(values).stem}-{values.config.method.name}-{values.config.seed}"


def field_names(config: ConfigDict, prefix: str = "") -> list[str]:
    """Returns the dotted names of all fields of a config, without its sections."""
    names: list[str] = []
    for name in config:
        is_section = hasattr(config[name], "keys")
        names += field_names(config[name], f"{prefix}{name}.") if is_section else [prefix + name]
    return names


def _define_flags(values: flags.FlagValues, argv: list[str], config: ConfigDict | None) -> None:
    """Defines the flags of one command line; absl's global flags would keep the values of an earlier one."""
    if config is not None and _value_of("config", argv) is None:
        config_flags.DEFINE_config_dict("config", config, sys_argv=argv, flag_values=values)
    else:
        config_flags.DEFINE_config_file("config", sys_argv=argv, flag_values=values)
    flags.DEFINE_string("workdir", None, "Directory of the run, or of all runs.", flag_values=values)
    flags.DEFINE_enum("mode", "train", MODES, "What to do.", flag_values=values)
    flags.DEFINE_string("checkpoint", None, "last, best, or a file of weights.", flag_values=values)
    flags.DEFINE_string("warmup_from", None, "Run whose warm-up is reused.", flag_values=values)
    flags.DEFINE_string("markdown", None, "File for the report as Markdown.", flag_values=values)
    flags.DEFINE_boolean("list", False, "Print the missing runs of a sweep.", flag_values=values)
    flags.DEFINE_enum(
        "launcher", LAUNCHERS[0], LAUNCHERS, "What starts the runs of a sweep.", flag_values=values
    )
    flags.DEFINE_boolean("distributed", False, "Several processes are one run.", flag_values=values)
    flags.DEFINE_string("coordinator_address", None, "host:port of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Number of processes.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Print the usage.", short_name="h", flag_values=values)


def _check_combination(values: flags.FlagValues) -> None:
    if values.checkpoint and values.mode not in ("evaluate", "export"):
        raise UserError(f"--checkpoint is for --mode evaluate and export; --mode is {values.mode}")
    if values.markdown and values.mode != "report":
        raise UserError(f"--markdown is for --mode report; --mode is {values.mode}")
    if values.mode == "report" and values.config is not None:
        raise UserError("--mode report takes no --config; give --workdir, the directory of all runs")
    if values.warmup_from and (values.mode != "train" or is_sweep(values.config)):
        raise UserError("--warmup_from is for training one run; a sweep has the field sweep.share_warmup")
    if values.list and not is_sweep(values.config):
        raise UserError("--list is for a sweep, as --config configs/sweeps/table1.py")
    if values.launcher != LAUNCHERS[0] and not is_sweep(values.config):
        raise UserError("--launcher is for a sweep, as --config configs/sweeps/table1.py")
    several = ("distributed", "coordinator_address", "num_processes", "process_id")
    given = [name for name in several if values[name].value not in (None, False)]
    if given and (is_sweep(values.config) or values.mode == "report"):
        raise UserError(f"--{given[0]} is for one run; a sweep or report is one process")


def _check_fields(argv: list[str], config: ConfigDict) -> list[str]:
    """Checks the names of the fields that flags set.

    Returns the command line with fractions as floats, and without the overrides of a sweep's runs, whose fields the
    sweep does not have.
    """
    fields = field_names(config)
    if is_sweep(config):
        overrides = run_overrides(argv)
        argv = [argument for argument in argv if argument not in overrides]
    for position, argument in enumerate(argv):
        match = re.match(r"--?(?:no)?config\.([^=]+)=?", argument)
        if not match:
            continue
        if match[1] not in fields:
            (nearest,) = difflib.get_close_matches(match[1], fields, n=1, cutoff=0)
            raise UserError(f"--config.{match[1]}: there is no such field; did you mean {nearest}?")
        if _type_of(match[1], config) is not float:
            continue
        if "=" in match[0]:
            argv[position] = match[0] + _as_float(argument[match.end() :])
        elif position + 1 < len(argv):
            argv[position + 1] = _as_float(argv[position + 1])
    return argv


def _type_of(field: str, config: ConfigDict) -> type:
    """Returns the type of the values of a dotted field."""
    section, _, name = field.rpartition(".")
    owner: ConfigDict = config[section] if section else config
    return owner.get_type(name)


def _as_float(text: str) -> str:
    """Returns a fraction of two numbers, as 8/255, as a float; any other text as it is."""
    numbers = text.split("/")
    try:
        return repr(float(numbers[0]) / float(numbers[1])) if len(numbers) == 2 else text
    except (ValueError, ZeroDivisionError):
        return text


def _value_of(flag: str, argv: list[str]) -> str | None:
    """Returns the value of the first --flag=VALUE or --flag VALUE."""
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        if re.fullmatch(f"--?{flag}", argument) and following:
            return following
        if match := re.match(f"--?{flag}=(.+)", argument):
            return match[1]
    return None


def _with_path_of_config(argv: list[str]) -> list[str]:
    """Returns the command line with the path of a shipped config in place of its name, if there is no such file."""
    shipped, value = _shipped(), _value_of("config", argv)
    if value is None or pathlib.Path(value).is_file():
        return argv
    path = shipped / f"{value.removeprefix('configs/').removesuffix('.py')}.py"
    if not path.is_file():
        return argv
    place = next(number for number, argument in enumerate(argv) if re.match("--?config(=|$)", argument))
    if "=" in argv[place]:
        return [*argv[:place], f"--config={path}", *argv[place + 1 :]]
    return [*argv[:place], f"--config={path}", *argv[place + 2 :]]


def _shipped() -> pathlib.Path:
    """Returns the directory of the shipped configs, and lets config files import it as `configs`."""
    package = pathlib.Path(__file__).parent
    if not (package / "configs").is_dir():  # A checkout has it beside the package.
        sys.path += [str(package.parent)] if str(package.parent) not in sys.path else []
        return package.parent / "configs"
    if importlib.util.find_spec("configs") is None:
        sys.modules["configs"] = importlib.import_module("jaxrw.configs")
    return package / "configs"


def _load_config(argv: list[str]) -> ConfigDict | None:
    """Returns the config without overrides, so that a mistake in its file is not taken for one in a flag."""
    path, workdir = _value_of("config", argv), _value_of("workdir", argv)
    if path is not None:
        return _load_file(argv[0], path)
    if workdir is not None and _value_of("mode", argv) in ("evaluate", "export"):
        return _load_run(pathlib.Path(workdir))
    return None


def _load_file(program: str, path: str) -> ConfigDict:
    values, argv = flags.FlagValues(), [program, f"--config={path}"]
    config_flags.DEFINE_config_file("config", sys_argv=argv, flag_values=values)
    try:
        values(argv)
        config: ConfigDict = values.config
        field_names(config)
        return config
    except OSError as error:
        raise UserError(
            f"--config {path} cannot be read; give a Python file or the name of a shipped one, of {_names()}"
        ) from error
    except Exception as error:  # A config file is a program, which can raise anything.
        raise UserError(f"--config {path}: {type(error).__name__}: {one_line(error)}") from error


def _names() -> str:
    return ", ".join(sorted(path.stem for path in _shipped().glob("*.py")))


def _load_run(workdir: pathlib.Path) -> ConfigDict:
    """Returns the config that a run keeps. JSON has no tuples, and None has no type."""
    from jaxrw import settings  # It imports JAX, which --help need not wait for.

    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=_with_tuples)
        if "dataset" not in content:
            raise LookupError("it has no section dataset")
        settings.add_fields(content)
        _add_types(content)
        return ConfigDict(content)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"--workdir {workdir}: {path.name} cannot be used ({reason}); give the directory of a run, or --config"
        ) from error


def _add_types(content: dict[str, Any]) -> None:
    """Gives the fields that are None the types that configs/base.py has for them, so that flags can set them."""
    _shipped()
    base = importlib.import_module("configs.base").get_config()
    for section, fields in content.items():
        for name in fields if isinstance(fields, dict) else ():
            if fields[name] is None and section in base and name in base[section]:
                fields[name] = placeholder(base[section].get_type(name))


def _with_tuples(section: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


def _wrong_value(config: ConfigDict | None, error: flags.IllegalFlagValueError) -> str:
    """Returns the field, the value and the type of a field that a flag sets to a value of another type."""
    match = re.match(r"flag --config\.([^=]+)=(.*?):", str(error), re.DOTALL)
    if config is None or not match:
        return one_line(error)
    return f"{match[1]} is {match[2]!r}; must be of type {_type_of(match[1], config).__name__}"
