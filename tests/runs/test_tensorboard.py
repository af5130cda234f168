"""What TensorBoard shows of a run: read by TensorBoard itself."""

import contextlib

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from jaxrw import runs
from jaxrw.training import histograms


def read(workdir):
    """All events below a run, as TensorBoard keeps them."""
    return EventAccumulator(str(workdir), size_guidance={"scalars": 0, "histograms": 0}).Reload()


def write(workdir, steps, *, resume_at=None):
    with contextlib.closing(runs.MetricsLog(workdir, resume_at=resume_at, writers=("tensorboard",))) as log:
        for step in steps:
            log.write("train", epoch=step // 4, step=step, loss=float(step), weights=np.ones(48).tolist())


def test_a_run_that_goes_on_has_every_step_once(tmp_path):
    """Stopped after step 12 with the checkpoint of step 8, gone on, and all within one second."""
    write(tmp_path, (4, 8, 12), resume_at=0)
    write(tmp_path, (12, 16), resume_at=8)
    write(tmp_path, (20,), resume_at=16)
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == [4, 8, 12, 16, 20]
    assert [event.step for event in events.Histograms("train/weights")] == [4, 8, 12, 16, 20]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    write(tmp_path, (4,), resume_at=0)
    write(tmp_path, (4, 8), resume_at=0)
    assert [event.step for event in read(tmp_path).Scalars("train/loss")] == [4, 8]


def test_histograms_and_images(tmp_path):
    counts = np.arange(40.0)
    Image.new("RGB", (6, 5), (255, 0, 0)).save(tmp_path / "grid.png")
    with contextlib.closing(runs.MetricsLog(tmp_path, writers=("tensorboard",))) as log:
        log.write("train", epoch=0, step=4, margins=counts.tolist())
        log.write("evaluation", epoch=0, step=4, checkpoint="best", clean=91.0)
        log.write_image("examples", tmp_path / "grid.png", step=4)
    events = read(tmp_path)
    (event,) = events.Histograms("train/margins")
    assert event.histogram_value.bucket == counts.tolist()
    assert event.histogram_value.bucket_limit == pytest.approx(histograms.MARGIN_EDGES[1:])
    assert events.Scalars("verdict/best/clean")[0].value == 91
    (image,) = events.Images("examples")
    assert (image.width, image.height) == (6, 5)


def test_learning_curves_come_before_the_evaluation(tmp_path):
    """TensorBoard shows tags in the order of their names."""
    with contextlib.closing(runs.MetricsLog(tmp_path, writers=("tensorboard",))) as log:
        log.write("evaluation", epoch=0, step=4, checkpoint="best", clean=91.0)
        for kind in ("train", "validation"):
            log.write(kind, epoch=0, step=4, loss=1.0)
    assert sorted(read(tmp_path).Tags()["scalars"]) == ["train/loss", "validation/loss", "verdict/best/clean"]


def test_histograms_are_drawn_where_the_examples_are(tmp_path):
    """TensorBoard stretches the outermost bins that are not empty to the smallest and the largest value it is told."""
    counts, edges = np.zeros(48), histograms.WEIGHT_EDGES
    counts[[30, 31]] = 5, 7
    with contextlib.closing(runs.MetricsLog(tmp_path, writers=("tensorboard",))) as log:
        log.write("train", epoch=0, step=4, weights=counts.tolist())
    (event,) = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload().Tensors("train/weights")
    drawn = tensor_util.make_ndarray(event.tensor_proto)
    # 1e-6: TensorBoard keeps float32.
    np.testing.assert_allclose(drawn, [[edges[30], edges[31], 5], [edges[31], edges[32], 7]], rtol=1e-6)
