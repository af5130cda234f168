"""Which kernels a process computes with, and that launch.py chooses before JAX is there."""

import importlib.metadata
import subprocess
import sys
import warnings

import pytest

from jaxrw.system import compilation

CHOICE = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize("version", ["0.10.0", "0.10.2", "0.11.0", "0.12.0.1"])
def test_flags_of_the_user_stay(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    compilation.choose_cpu_kernels()
    first, second = compilation.os.environ["XLA_FLAGS"].split()
    assert first == "--xla_force_host_platform_device_count=2"
    assert second.startswith(CHOICE)
    monkeypatch.setenv("XLA_FLAGS", f"{CHOICE}=LIBRARY_FUSION_TYPE_INVALID")
    compilation.choose_cpu_kernels()
    assert compilation.os.environ["XLA_FLAGS"] == f"{CHOICE}=LIBRARY_FUSION_TYPE_INVALID"


@pytest.mark.parametrize("version", ["0.9.1", "0.13.0", "1.0"])
def test_no_other_version_is_given_a_flag_that_may_end_it(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    compilation.choose_cpu_kernels()
    assert "XLA_FLAGS" not in compilation.os.environ


def test_who_has_not_chosen_is_told(monkeypatch):
    """One line, at the caller, and only where it would help."""
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.12.0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)

    def attack():
        compilation.warn_of_slow_kernels()

    with pytest.warns(UserWarning, match="call jaxrw.system.compilation.choose_cpu_kernels") as caught:
        attack()
    assert caught[0].filename == __file__
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.13.0")
        attack()
        monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.12.0")
        compilation.choose_cpu_kernels()
        attack()


def test_launch_chooses_before_jax_is_imported():
    program = (
        "import sys, launch\n"
        "from jaxrw.system import compilation\n"
        "def choose(): print('jax' in sys.modules)\n"
        "compilation.choose_cpu_kernels = choose\n"
        "launch.main(['launch.py', '--config=configs/digits.py', '--config.optim.batch_size=0'])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr
