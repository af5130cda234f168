"""The scripts of docs/slurm.md, with programs that stand in for Slurm's and for Python."""

import os
import shutil
import subprocess

import pytest
from helpers import commands

PAGE = commands.ROOT / "docs" / "slurm.md"
SUBMIT, ARRAY, NODES, TRY = commands.blocks(PAGE, "bash")

# Each stands in for a program and writes its name and arguments to the file `calls`.
STAND_INS = {
    "srun": 'exec "$@"',
    "scontrol": "",
    "sbatch": "",
    "python": 'if [[ $* == *--list* ]]; then echo "$LISTED"; fi; exit $STATUS',
}
LISTED = """python launch.py --config=a.py --workdir=runs/a
python launch.py --config=b.py '--config.evaluation.attacks=('"'"'clean'"'"',)' --workdir=runs/b"""


@pytest.fixture
def typed(tmp_path):
    """Runs a script; returns its status, and the calls of the programs as lists."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, body in STAND_INS.items():
        call = r"printf '%s\x1f' " + name + r' "$@" >> calls; printf "\n" >> calls'
        (tmp_path / "bin" / name).write_text(f"#!{shutil.which('bash')}\n{call}\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def run(script, **variables):
        (tmp_path / "calls").unlink(missing_ok=True)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "LISTED": LISTED, "STATUS": "0", **variables}
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.stderr == ""
        return done.returncode, [
            line.split("\x1f")[:-1] for line in (tmp_path / "calls").read_text().splitlines()
        ]

    return run


def test_every_run_of_the_sweep_is_a_task(typed, tmp_path):
    _, ((_, *arguments), submitted) = typed(SUBMIT)
    assert arguments[0] == "launch.py"
    commands.check(" ".join(["python", *arguments]).replace("configs/", f"{commands.ROOT}/configs/"))
    assert submitted == ["sbatch", "--array=0-1", "table1.sbatch"]
    assert (tmp_path / "runs" / "commands.txt").read_text() == f"{LISTED}\n"


@pytest.mark.parametrize(("status", "is_requeued"), [(0, False), (1, False), (2, False), (75, True)])
def test_a_task_that_was_stopped_goes_back_into_the_queue(typed, status, is_requeued):
    typed(SUBMIT)
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    found, calls = typed(ARRAY, STATUS=str(status), **task)
    own = ["--config=b.py", "--config.evaluation.attacks=('clean',)", "--workdir=runs/b"]
    assert calls[:2] == [["srun", "python", "launch.py", *own], ["python", "launch.py", *own]]
    assert calls[2:] == ([["scontrol", "requeue", "7_1"]] if is_requeued else [])
    assert found == status


@pytest.mark.parametrize(("status", "is_requeued"), [(0, False), (1, False), (75, True)])
def test_a_run_on_several_nodes_goes_back_into_the_queue(typed, status, is_requeued):
    found, calls = typed(NODES, STATUS=str(status), SLURM_JOB_ID="7")
    assert calls[1][:3] == ["python", "launch.py", "--distributed"]
    commands.check("--distributed --config=configs/wrn_c100.py --workdir=runs")
    assert calls[2:] == ([["scontrol", "requeue", "7"]] if is_requeued else [])
    assert found == status


def test_two_processes_find_each_other_by_slurms_variables():
    """The names that JAX looks for, which the page sets."""
    import inspect

    from jax._src.clusters import slurm_cluster

    text = inspect.getsource(slurm_cluster)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        assert name in TRY
        assert f"'{name}'" in text
