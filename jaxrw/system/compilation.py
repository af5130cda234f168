"""How XLA compiles: the kernels it uses on a CPU, and the cache of compiled programs."""

import importlib.metadata
import os
import pathlib
import warnings

# JAX convolves on the CPU with YNNPACK, and attacks then take 1.3 to 1.6 times as long as with XLA's own kernels.
# Matrix products stay with YNNPACK.
_XLA_CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"

# Versions that know the flag: XLA aborts the process for one that it does not know.
_KNOWING = (["0", "10"], ["0", "11"], ["0", "12"])


def choose_cpu_kernels() -> None:
    """Makes JAX convolve with XLA's own kernels on the CPU; call it before JAX is imported.

    Adds a flag to $XLA_FLAGS, unless they choose already. Programs for GPU and TPU do not change.
    """
    if _has_slow_kernels():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_CONVOLUTIONS}".strip()


def warn_of_slow_kernels() -> None:
    """Warns on a CPU if `choose_cpu_kernels` has not been called, at the caller of the function that calls this one."""
    import jax

    if jax.default_backend() == "cpu" and _has_slow_kernels():
        warnings.warn(
            "JAX convolves with slow kernels on this CPU; call jaxrw.system.compilation.choose_cpu_kernels() before "
            "JAX is imported, and an attack takes 0.6 to 0.8 of the time",
            stacklevel=3,
        )


def _has_slow_kernels() -> bool:
    version = importlib.metadata.version("jaxlib").split(".")
    return version[:2] in _KNOWING and "xla_cpu_experimental_ynn" not in os.environ.get("XLA_FLAGS", "")


def enable_cache() -> None:
    """Caches compiled programs in ~/.cache/jaxrw, or in $JAX_COMPILATION_CACHE_DIR, for a faster next start."""
    import jax

    # A full disk does no harm here. JAX warns with a plain UserWarning, so only the text tells it from others.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if not jax.config.values["jax_compilation_cache_dir"]:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "jaxrw"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX skips programs that compile within a second; a start has many of them.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
