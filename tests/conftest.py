"""Settings that every test shares, and two runs that several files share: trained once a session, if a test asks."""

import gc
import importlib.metadata
import importlib.util
import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and run little: without most optimizations they take little more than half the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Older emitters of fusions compile in 0.6 of the time. XLA aborts the process for a flag that it does not know.
if (
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
    and importlib.metadata.version("jaxlib").startswith("0.10.")
    and "fusion_emitters" not in os.environ.get("XLA_FLAGS", "")
):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
# One cache of compiled programs for a session, its workers and their subprocesses, so that a run that resumes need not
# compile its step again. It is deleted with the session, so that no session uses the programs of another.
if "JAXRW_TEST_CACHE" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="jaxrw-test-cache-")
    os.environ["JAXRW_TEST_CACHE"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import hypothesis
import pytest

from jaxrw.system import compilation

compilation.choose_cpu_kernels()  # as launch.py does

# Examples compile or run JAX code, whose first call is slow; the examples are the same in every run.
hypothesis.settings.register_profile("jaxrw", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxrw")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees the compiled programs of a module: each maps memory, and Linux allows a process 65,530 mappings."""
    yield
    import jax  # Not before the kernels are chosen.

    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def forget_methods(monkeypatch):
    """Leaves the methods as they were: config files add to them, and so do reports of runs of such files."""
    from jaxrw.methods import METHODS, records  # Not before the kernels are chosen.

    monkeypatch.setattr(records, "_ADDED", dict(records._ADDED))
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A run that nothing interrupted. test_train.py evaluates it, which adds to its files: others only read them."""
    from helpers import tiny  # Not before the kernels are chosen.

    from jaxrw import train

    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train.run(tiny.config(), workdir)
    return workdir


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run that has learned something, and its weights as PyTorch has them."""
    from helpers.tiny import with_attacks  # Not before the kernels are chosen.

    from jaxrw import export, train

    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = with_attacks("clean")
    train.run(config, workdir)
    paths = export.run(config, workdir)
    assert paths == [workdir / "last.safetensors", workdir / "best.safetensors"]
    return config, workdir


# PyTorch and Ray are extras; without them, these cannot be imported for their doctests.
_WITH_EXTRA = {
    "torch": ["helpers/torch_networks.py", "helpers/torch_recipe.py"],
    "ray": ["helpers/ray_cluster.py"],
}
collect_ignore = [
    path for name, paths in _WITH_EXTRA.items() if not importlib.util.find_spec(name) for path in paths
]
