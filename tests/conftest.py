"""Settings that every test shares."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# One cache of compiled programs for a session and its subprocesses: runs that go on need not compile again.
_CACHE = tempfile.TemporaryDirectory(prefix="jaxrw-test-cache-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import hypothesis  # noqa: E402

# Examples compile or run JAX code, whose first call is slow; the examples are the same in every run.
hypothesis.settings.register_profile("jaxrw", deadline=None, derandomize=True)
hypothesis.settings.load_profile("jaxrw")
