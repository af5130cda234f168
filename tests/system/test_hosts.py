"""Several processes on one machine that are one run, as the hosts of a TPU slice are."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers.flags import DIGITS, TINY, xla_flags

from jaxrw.figures import FIGURES
from jaxrw.system import hosts
from jaxrw.system.errors import RunError

ROOT = pathlib.Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"


def start(command, *, processes, devices, arguments, flags=""):
    """Processes of one run, each with so many devices; `arguments`: (process, port) -> its own flags."""
    environment = os.environ | {
        "XLA_FLAGS": f"{xla_flags(devices)} {flags}",
        "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}",
    }
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command), *map(str, arguments(process, port))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for process in range(processes)
    ]


def end(running, seconds=580):
    """Statuses, outputs and errors of processes."""
    try:
        told = [process.communicate(timeout=seconds) for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], *zip(*told, strict=True)


def program(processes, devices, directory, *what):
    """Run several_hosts.py to its end."""
    running = start(
        [HELPERS / "several_hosts.py"],
        processes=processes,
        devices=devices,
        arguments=lambda process, port: (process, processes, port, directory, *what),
    )
    return end(running)


def steps(processes, devices, directory, first, last):
    """What several_hosts.py writes after these steps."""
    statuses, _, errors = program(processes, devices, directory, first, last)
    assert statuses == [0] * processes, errors
    with np.load(directory / f"{last}.npz") as arrays:
        return dict(arrays)


def test_two_hosts_with_two_devices_are_one_with_four(tmp_path):
    """Three steps on 1 x 4 devices; the same on 2 x 2, then 1 x 2, then 2 x 2 again, from checkpoints.

    Three steps of SGD at learning rate 0.02, in which the sums over 32 examples have another order: 1e-6 is what
    tests/test_step.py finds for 1 and 4 devices when no sign in an attack falls the other way.
    """
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    expected = steps(1, 4, whole, 0, 3)
    steps(2, 2, parted, 0, 1)
    steps(1, 2, parted, 1, 2)
    found = steps(2, 2, parted, 2, 3)
    np.testing.assert_allclose(found["parameters"], expected["parameters"], atol=1e-6)
    np.testing.assert_array_equal(found["measured"], expected["measured"])
    # AutoAttack: each host its own examples, and every example once.
    np.testing.assert_array_equal(found["robust"], expected["robust"])
    np.testing.assert_array_equal(found["counts"], expected["counts"])
    np.testing.assert_allclose(found["adversarial"], expected["adversarial"], atol=1e-6)
    assert 0 < found["robust"].sum() < len(found["robust"])
    assert not list(parted.glob("damaged"))


def test_when_one_is_killed_the_others_end_with_a_message(tmp_path):
    began = time.monotonic()
    statuses, _, errors = program(2, 2, tmp_path, "killed")
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] not in (0, None)
    assert "has lost another one" in errors[0] or "another task died" in errors[0]
    assert time.monotonic() - began < 200  # the start of both included, on a busy machine


def test_a_signal_to_any_of_them_stops_all(tmp_path):
    """After the same sum of a program without an end, soon; and after the same attack of AutoAttack, which goes on."""
    statuses, outputs, errors = program(2, 1, tmp_path, "stopped")
    assert statuses == [0, 0], errors
    told = [re.findall(r"stopped in: (\d+) (\S+)", output) for output in outputs]
    assert told[0] == told[1]
    (first_sum, first_attack), (second_sum, second_attack) = told[0]
    assert [first_attack, second_attack] == ["apgd-ce", "apgd-t"]
    # The signal comes at 20; it is sent with that sum or a later one, and read at the one after.
    assert all(21 <= int(number) < 1000 for number in (first_sum, second_sum))


def test_sigterm_to_one_stops_both_at_the_same_step_and_they_go_on(tmp_path):
    """The command line: training until SIGTERM, then to the end, figures included; the first process alone tells."""
    workdir = tmp_path / "run"
    evaluation = ["--config.evaluation.attacks=('clean',)", "--config.evaluation.figure_examples=8"]
    command = ["launch.py", DIGITS, *TINY, *evaluation, f"--workdir={workdir}"]

    def launched(num_epochs):
        """Two processes with two devices each; nothing is optimised, which costs half the time of this test."""
        return start(
            [*command, f"--config.optim.num_epochs={num_epochs}"],
            processes=2,
            devices=2,
            arguments=lambda process, port: (
                f"--coordinator_address=127.0.0.1:{port}",
                "--num_processes=2",
                f"--process_id={process}",
            ),
            flags="--xla_backend_optimization_level=0",
        )

    running = launched(1000)
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert time.monotonic() < deadline
        assert running[0].poll() is None, running[0].communicate()
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    began = time.monotonic()
    statuses, outputs, errors = end(running)
    assert time.monotonic() - began < 100  # 30 on a machine that is not busy
    assert statuses == [75, 75], errors
    told = ["".join(line for line in text.splitlines() if "launch.py: stopped" in line) for text in errors]
    assert told[0] == told[1]
    assert "stopped by SIGTERM after step" in told[0]
    assert "4 x cpu" in outputs[0]
    assert "epoch" not in outputs[1]
    steps_saved = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"after step {steps_saved[-1]:,}," in told[0]
    num_epochs = steps_saved[-1] // 4 + 1
    config = json.loads((workdir / "config.json").read_text())
    config["optim"]["num_epochs"] = num_epochs
    (workdir / "config.json").write_text(json.dumps(config))
    statuses, outputs, errors = end(launched(num_epochs))
    assert statuses == [0, 0], errors
    assert f"going on after step {steps_saved[-1]:,}" in outputs[0]
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    epochs = [line["epoch"] for line in lines if line["kind"] == "train"]
    assert epochs == list(range(num_epochs))
    results = json.loads((workdir / "results.json").read_text())
    assert results["checkpoints"]["last"]["num_examples"] == 30
    assert {path.name for path in (workdir / "figures").glob("*.png")} == {f"{name}.png" for name in FIGURES}


def test_alone_everything_is_free():
    assert hosts.is_first()
    assert hosts.delayed_maximum()(15, wait=False) == 15
    value, array = {"a": [1, None]}, np.arange(6)
    assert hosts.broadcast(value) is value
    assert hosts.gather(array) is array
    np.testing.assert_array_equal(hosts.local_part(array), array)
    assert hosts.local_mask(3).all()
    with pytest.raises(ValueError, match="Gloo"), hosts.naming_lost_processes():
        raise ValueError("Gloo")


def coded(code):
    """An error as the coordination service raises it; Python cannot give one a code otherwise."""
    return type(code, (jax.errors.JaxRuntimeError,), {"error_code_string": code})("in other words")


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (coded("UNAVAILABLE"), True),
        (coded("DEADLINE_EXCEEDED"), True),
        (coded("RESOURCE_EXHAUSTED"), False),
        # What JAX 0.10 raises on a CPU, from `jit` and from `pmap`.
        (jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: NCCL operation ncclAllReduce failed"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: something else"), False),
        (ValueError("UNAVAILABLE: from `pmap`"), True),
        (ValueError("UNAVAILABLE is a word in it"), False),
    ],
    ids=repr,
)
def test_errors_of_a_lost_process(error, lost, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RunError if lost else type(error)) as raised, hosts.naming_lost_processes():
        raise error
    assert ("process 0 of 2 has lost another one" in str(raised.value)) is lost
