"""Runs that train an average of the parameters: resumed with the same bits, and the average is what is evaluated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.trained import interrupted_at, last_state, lines

from jaxrw import evaluate, export, train
from jaxrw.networks import torch_weights
from jaxrw.training import step
from jaxrw.training.experiment import create_experiment


def test_a_run_with_averages_awp_and_extra_images_resumes_with_the_same_bits(tmp_path, monkeypatch):
    """Stopped within the warm-up, within the averaging and at the end of an epoch; AWP and SWA begin on the way."""
    images = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "extra.npz", image=images, label=np.arange(20) % 10)
    config = tiny.config(
        objective__name="trades",
        awp__gamma=0.01,
        awp__start_epoch=1,
        average__name="swa",
        average__start_epoch=1,
        extra__path=str(tmp_path / "extra.npz"),
        extra__share=0.25,
        checkpoint__every_steps=1,
    )
    train.run(config, tmp_path / "whole")
    monkeypatch.setattr(train, "create_step", interrupted_at(2, 8, 14))
    stops = 0
    while stops < 9:
        try:
            train.run(config, tmp_path / "run")
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3
    states = [last_state(tmp_path / name, config)[0] for name in ("whole", "run")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    average, live = states[0].average["params"], states[0].params
    assert any(
        np.abs(a - b).max() > 1e-4 for a, b in zip(*map(jax.tree.leaves, (average, live)), strict=True)
    )


def test_the_average_is_what_is_evaluated(tmp_path):
    """Of a finished run: validation, evaluation and export use the average, with the model's own statistics (EMA)."""
    config = tiny.config(average__name="ema", average__decay=0.9)
    experiment = train.run(config, tmp_path)
    state, *_ = last_state(tmp_path, config)
    results = evaluate.run(config, tmp_path, checkpoint="last")

    def clean(variables, split):
        logits = experiment.model.apply(variables, split.images / np.float32(255), train=False)
        return 100 * np.mean(np.argmax(logits, 1) == split.labels)

    found = results["checkpoints"]["last"]["accuracy"]["clean"]
    assert found == pytest.approx(clean(state.average, experiment.dataset.test))
    validated = lines(tmp_path, "validation")[-1]["clean"]
    assert validated == pytest.approx(clean(state.average, experiment.dataset.validation))
    moved = zip(*map(jax.tree.leaves, (state.average["params"], state.params)), strict=True)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in moved)
    (path,) = export.run(config, tmp_path, checkpoint="last")
    weights = torch_weights.load(path, model=experiment.model, num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, weights["params"], state.average["params"])


def test_statistics_of_averaged_parameters_do_not_depend_on_those_before():
    """So a renewal that is repeated after a stop has the same bits."""
    config = tiny.config(average__name="swa")
    experiment = create_experiment(config)
    state = experiment.create_state()
    renew = train._create_renewal(config, experiment)
    images = train.accuracy.replicated(experiment.dataset.train)[0]
    found = []
    for value in (0.0, 0.3):
        statistics = jax.tree.map(lambda leaf, value=value: jnp.full_like(leaf, value), state.batch_stats)
        average = {"params": state.params, "batch_stats": statistics}
        found.append(renew(step.replicate(dataclasses.replace(state, average=average)), images, 0).average)
    jax.tree.map(np.testing.assert_array_equal, *found)
