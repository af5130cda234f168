"""A directory for sweeps that train nothing."""

import pytest
from helpers.sweeps import LAUNCHER, ROOT


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory with a launcher that trains nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    return tmp_path
