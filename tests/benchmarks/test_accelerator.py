"""The benchmark for GPUs and TPUs, small on a CPU: it measures, keeps what it has measured, and stops in time."""

import json

from benchmarks import accelerator, timing

SMALL = ["--networks", "resnet18", "--width", "1", "--batch", "2", "--dtype", "float32", "--repeats", "1"]


def test_it_resumes_with_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    accelerator.main([*SMALL, "--parts", "exact", "--minutes", "0"])
    assert "the minutes are over; the same command resumes" in capsys.readouterr().out
    accelerator.main([*SMALL, "--parts", "exact"])
    (kept,) = json.loads((tmp_path / "results" / "accelerator.json").read_text()).values()
    assert kept["same_bits_twice"] is True
    assert kept["largest_difference_from_cpu"] == 0

    monkeypatch.setattr(accelerator, "_exact", lambda config: {"again": 1.0})
    accelerator.main([*SMALL, "--parts", "exact", "step"])
    rows = json.loads((tmp_path / "results" / "accelerator.json").read_text())
    assert [next(iter(row)) for row in rows.values()] == ["same_bits_twice", "ms"]
    (step,) = (row for row in rows.values() if "ms" in row)
    assert step["images_per_second"] == 2000 / step["ms"]
    assert step["share_of_peak"] is None  # of a CPU nobody knows it
    # 120 epochs of 49,000 images.
    assert abs(step["hours_of_the_config"] - 120 * 49_000 / 2 * step["ms"] / 3.6e6) < 1e-6
    assert "same bits twice True" in capsys.readouterr().out


def test_the_share_of_the_peak_is_that_of_the_chip(monkeypatch):
    class Device:
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(accelerator.jax, "devices", lambda: [Device()])
    monkeypatch.setattr(accelerator.jax, "device_count", lambda: 1)
    assert accelerator._share_of_peak(99e12, "float32") == 0.2
    assert accelerator._share_of_peak(989e12, "bfloat16") == 1
