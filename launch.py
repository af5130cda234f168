"""Adversarial training with instance reweighting, from one command.

    python launch.py --config FILE [--workdir DIR] [--mode train|evaluate|report|export] [--config.FIELD=VALUE ...]
    python launch.py --config configs/sweeps/FILE [--workdir DIR] [--list]

train     (default) train, or resume exactly where DIR stopped; then evaluate the last and the best checkpoint
          with --warmup_from RUN, begin after the warm-up of another run, which is the same for every method
evaluate  evaluate a run again: --workdir DIR [--checkpoint last|best]
          or a PyTorch network: --config FILE --checkpoint WEIGHTS.pt|WEIGHTS.safetensors
report    tables and figures of every results.json below DIR, in DIR/report [--markdown FILE]
export    write a run's weights for PyTorch: --workdir DIR [--checkpoint last|best]

Every field that can be set is in configs/base.py. A config file is Python and is executed.
"""

import pathlib
import sys
from collections.abc import Sequence

import jaxrw.main
from jaxrw.system.errors import print_unraisable


def main(argv: Sequence[str]) -> int:
    """Runs a command line and returns its exit status, see `jaxrw.main.main`."""
    return jaxrw.main.main(argv, usage=__doc__, launcher=pathlib.Path(__file__))


if __name__ == "__main__":
    sys.unraisablehook = print_unraisable
    sys.exit(main(sys.argv))
