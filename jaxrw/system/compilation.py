"""How XLA compiles for a process: with which kernels on a CPU, and where it keeps the programs."""

import importlib.metadata
import os
import pathlib
import warnings

# JAX 0.10, the newest for Python 3.11, convolves on the CPU by YNNPACK: an attack takes a quarter longer than with
# XLA's own kernels, which JAX 0.12 uses again. Products of matrices stay with YNNPACK.
_OWN_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def choose_cpu_kernels():
    """Let JAX 0.10 convolve with XLA's own kernels on the CPU; of no effect once JAX has been imported.

    Added to $XLA_FLAGS, unless these choose already. Programs for GPU and TPU are the same with and without.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = importlib.metadata.version("jaxlib").split(".")
    # Another version may not know this flag, and XLA ends a process for a flag that it does not know.
    if version[:2] == ["0", "10"] and "xla_cpu_experimental_ynn" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_OWN_CONVOLUTIONS}".strip()


def keep_programs():
    """Keep what XLA compiles in ~/.cache/jaxrw, or in $JAX_COMPILATION_CACHE_DIR: the next start is faster."""
    import jax

    # On a full disk nothing can be kept, which is no harm.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "jaxrw"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX would leave out what compiles within a second: a start has many of these.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
