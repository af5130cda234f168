"""Checkpoints that are damaged are named, set aside and never restored; what is written is whole or not there."""

import pathlib
import random
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrw.runs import checkpoints, integrity
from jaxrw.system.errors import RunError, UserError
from jaxrw.training import step


def state_of(number, size=50):
    """A small state that no other step has."""
    arrays = {"kernel": jnp.arange(size, dtype=jnp.float32) * (number + 1), "bias": jnp.full(3, number * 1.5)}
    return step.State(
        step=jnp.int32(number),
        params=arrays,
        batch_stats={},
        opt_state=(),
        sums={name: jnp.float32(number) for name in step.SUMS},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with checkpoints of the steps 4, best, 8 and 12."""
    workdir = tmp_path_factory.mktemp("run")
    with checkpoints.open_checkpoints(workdir / "checkpoints") as manager:
        for number, accuracy in ((4, 50.0), (8, 40.0), (12, 30.0)):
            checkpoints.save(manager, state_of(number), epoch=number // 4, accuracy=accuracy)
    return workdir


@pytest.fixture
def run(written, tmp_path):
    """A copy of it to be damaged."""
    return shutil.copytree(written, tmp_path / "run")


def restored(run, number="latest"):
    """Step and kernel that a run goes on from, and its best step."""
    with checkpoints.open_checkpoints(run / "checkpoints") as manager:
        number = manager.latest_step() if number == "latest" else number
        if number is None:
            return None, None
        state = checkpoints.restore(manager, number, state_of(0))
        np.testing.assert_array_equal(state.params["kernel"], state_of(number).params["kernel"])
        return number, manager.best_step()


def test_what_is_kept(written, capsys):
    assert sorted(path.name for path in (written / "checkpoints").iterdir()) == ["12", "4", "8"]
    assert restored(written) == (12, 4)
    assert capsys.readouterr().err == ""
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=written / "checkpoints" / "12"
    )
    assert checked.returncode == 0


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, generator=random.Random(0)):  # noqa: B008
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


DAMAGES = {
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "bit flipped": flip,
    "removed": pathlib.Path.unlink,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_of_any_file_is_named_and_the_one_before_is_used(kind, run, capsys):
    """Each file that is sealed, one after the other, put right again after it."""
    last = run / "checkpoints" / "12"
    files = [
        path for path in sorted(last.rglob("*")) if path.is_file() and path.name not in integrity._UNSEALED
    ]
    assert len(files) > 8
    for path in files:
        whole = path.read_bytes()
        DAMAGES[kind](path)
        assert integrity.find_damage(last) is not None, path
        path.write_bytes(whole)
    assert integrity.find_damage(last) is None
    largest = max(files, key=lambda path: path.stat().st_size)
    DAMAGES[kind](largest)
    assert restored(run) == (8, 4)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "checkpoints/12 is damaged" in told
    assert largest.name in told
    assert f"kept as {run / 'damaged' / '12'}" in told
    assert (run / "damaged" / "12" / "_CHECKPOINT_METADATA").exists()
    assert restored(run) == (8, 4)
    assert capsys.readouterr().err == ""


def test_half_written_checkpoints(run, capsys):
    (run / "checkpoints" / "16").mkdir()
    (run / "checkpoints" / "20" / "default").mkdir(parents=True)
    shutil.copytree(run / "checkpoints" / "12", run / "checkpoints" / "24.orbax-checkpoint-tmp")
    assert restored(run) == (12, 4)
    told = capsys.readouterr().err
    assert "16 is damaged: it has no SHA256SUMS" in told
    assert "20 is damaged: it has no SHA256SUMS" in told
    assert not (run / "checkpoints" / "24.orbax-checkpoint-tmp").exists()
    write_step_16(run)
    assert restored(run) == (16, 4)


def test_the_best_and_then_all_are_damaged(run, capsys):
    truncate(run / "checkpoints" / "4" / "metrics" / "metrics")
    assert restored(run) == (12, 8)
    assert "4 is damaged: metrics/metrics" in capsys.readouterr().err
    for name in ("8", "12"):
        shutil.rmtree(run / "checkpoints" / name / "default")
    assert restored(run) == (None, None)
    assert sorted(path.name for path in (run / "damaged").iterdir()) == ["12", "4", "8"]


def test_bookkeeping_of_orbax_may_be_damaged(run):
    """The two files that are not sealed: whatever happens to them, the right state or the one before."""
    for name in integrity._UNSEALED:
        for kind in DAMAGES:
            path = run / "checkpoints" / "12" / name
            whole = path.read_bytes()
            DAMAGES[kind](path)
            number, _ = restored(run)
            assert number in (8, 12)
            if number == 8:
                (run / "damaged" / "12").rename(run / "checkpoints" / "12")
            path.write_bytes(whole)


def test_links_do_not_lead_out(run, tmp_path, capsys):
    outside = tmp_path / "outside"
    shutil.move(run / "checkpoints" / "12", outside)
    (run / "checkpoints" / "12").symlink_to(outside)
    (run / "checkpoints" / "deleted").symlink_to(tmp_path)
    (run / "checkpoints" / "8" / "more").symlink_to(outside)
    assert restored(run) == (4, 4)
    assert "12 is damaged: it is a symbolic link" in capsys.readouterr().err
    assert (outside / "SHA256SUMS").exists()
    assert not (run / "checkpoints" / "deleted").exists()


def test_a_checkpoint_of_another_model_or_name_is_refused_and_stays(run):
    with checkpoints.open_checkpoints(run / "checkpoints") as manager:
        for other in (
            state_of(0, size=51),
            state_of(0).replace(params={"kernel": jnp.zeros(50)}),
            state_of(0).replace(params=state_of(0).params | {"bias": jnp.zeros(3, jnp.float16)}),
        ):
            with pytest.raises(UserError, match="no checkpoint of this config and this version: its arrays"):
                checkpoints.restore(manager, 12, other)
    (run / "checkpoints" / "12").rename(run / "checkpoints" / "13")
    with (
        checkpoints.open_checkpoints(run / "checkpoints") as manager,
        pytest.raises(UserError, match="13 holds step 12, not 13"),
    ):
        checkpoints.restore(manager, 13, state_of(0))
    assert (run / "checkpoints" / "13" / "SHA256SUMS").exists()


def test_saving_the_same_step_again_replaces_it(run):
    with checkpoints.open_checkpoints(run / "checkpoints") as manager:
        checkpoints.save(manager, state_of(12), epoch=3, accuracy=60.0)
    assert restored(run) == (12, 12)


def test_a_write_that_fails_is_one_line_and_leaves_the_others(run, monkeypatch):
    """As on a full disk: whatever orbax meets in its background thread ends the run."""

    def full(directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(integrity, "seal", full)
    with pytest.raises(RunError, match=r"step 16 cannot be written in .*No space left on device"):
        write_step_16(run)
    monkeypatch.undo()
    assert restored(run) == (12, 4)


def write_step_16(run):
    """One more checkpoint, waited for."""
    with checkpoints.open_checkpoints(run / "checkpoints") as manager:
        checkpoints.save(manager, state_of(16), epoch=4, accuracy=10.0)
