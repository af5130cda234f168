"""Settings that every test shares."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import hypothesis

# Examples compile or run JAX code, whose first call is slow; found examples are the same in every run.
hypothesis.settings.register_profile("jaxrw", deadline=None, derandomize=True, print_blob=False)
hypothesis.settings.load_profile("jaxrw")
