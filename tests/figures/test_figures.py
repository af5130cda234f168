"""What figures show is what was measured; every one is drawn, and drawn again without a model."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from jaxrw import figures, methods, runs, settings
from jaxrw.attacks import suite
from jaxrw.figures import learning_curves, margins, measurement, robustness, style, weighting
from jaxrw.system.errors import UserError
from jaxrw.training import accuracy, histograms, step
from jaxrw.training.experiment import create_experiment

SETTINGS = {
    "norm": "linf",
    "eps": 0.1,
    "step_size": 0.025,
    "batch_size": 16,
    "figure_examples": 30,
    "figure_eps": [0.0, 0.5, 1.0],
}
CHECKPOINT = {"name": "last", "epoch": 2, "step": 12}


@pytest.fixture(scope="module")
def experiment():
    return create_experiment(tiny.config())


@pytest.fixture(scope="module")
def state(experiment):
    """Random weights, enlarged so that predictions differ between images."""
    state = step.replicate(experiment.create_state())
    return state.replace(params=jax.tree.map(lambda p: 1.3 * p, state.params))


@pytest.fixture(scope="module")
def workdir(experiment, state, tmp_path_factory):
    """A run's directory with what the figures are made of."""
    workdir = tmp_path_factory.mktemp("run")
    figures.measure(
        experiment, state.variables, workdir / "figures", checkpoint=CHECKPOINT, settings=SETTINGS
    )
    counts = {name: [0] * (len(edges) - 2) + [64] for name, edges in histograms.EDGES.items()}
    lines = []
    for epoch in range(3):
        line = {"epoch": epoch, "step": 4 * (epoch + 1)}
        values = {"loss": 2.0, "accuracy": 20.0 + epoch, "mean_weight": 1.0, "light_share": 0.0, **counts}
        lines += [
            {"kind": "train", **line, **values},
            {"kind": "validation", **line, "clean": 50.0, "pgd2": 30.0},
        ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoints = {
        name: {
            "epoch": epoch,
            "step": 4 * (epoch + 1),
            "num_examples": 30,
            "accuracy": dict.fromkeys(suite.ATTACKS),
        }
        for name, epoch in (("last", 2), ("best", 1))
    }
    checkpoints["last"]["accuracy"]["clean"] = 50.0
    results = {
        "schema": 1,
        "config": settings.as_json(tiny.config()),
        "checkpoints": checkpoints,
        "train_seconds": 1.0,
    }
    runs.write_json(workdir / "results.json", results)
    figures.draw_again(workdir)
    return workdir


def test_what_is_kept_is_what_evaluation_measures(experiment, state, workdir):
    """Same images, same key, same attack as the columns Clean and PGD-20 of the table; batches differ."""
    facts, arrays = figures.read(workdir / "figures")
    attacks = {name: suite.create(name, eps=0.1, step_size=0.025) for name in ("clean", "pgd20")}
    evaluator = accuracy.Evaluator(
        experiment.evaluation_model,
        experiment.dataset.test,
        experiment.evaluation_key,
        attacks,
        batch_size=30,
    )
    for name, kind, place in (("clean", "clean", 0), ("pgd20", "adversarial", 2)):
        expected = evaluator.measure(name, state.variables).accuracy
        assert 100 * (arrays[kind].argmax(1) == arrays["labels"]).mean() == pytest.approx(expected)
        assert facts["curve"][place][1] == pytest.approx(expected)
    assert facts["num_examples"] == 30
    assert [eps for eps, _ in facts["curve"]] == pytest.approx([0, 0.05, 0.1])
    change = arrays["adversarial_images"] - arrays["images"] / 255
    assert 0.09 < np.abs(change).max() <= 0.1 + 1e-6


def test_r_is_numpys(workdir):
    facts, arrays = figures.read(workdir / "figures")
    for kind in ("clean", "adversarial"):
        p = np.exp(arrays[kind].astype(np.float64) - arrays[kind].max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        of_label = p[np.arange(30), arrays["labels"]]
        others = p.copy()
        others[np.arange(30), arrays["labels"]] = 0
        cosine = (p * others).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(others, axis=1)
        assert facts["r"][kind] == pytest.approx(np.corrcoef(1 - of_label, cosine)[0, 1], abs=1e-4)
    assert measurement.correlation(np.ones(3), np.arange(3)) is None


def test_it_is_measured_once_for_the_same_checkpoint_and_settings(workdir):
    directory = workdir / "figures"
    assert figures.is_measured(directory, checkpoint=CHECKPOINT, settings=SETTINGS)
    assert not figures.is_measured(directory, checkpoint=CHECKPOINT | {"step": 16}, settings=SETTINGS)
    assert not figures.is_measured(directory, checkpoint=CHECKPOINT, settings=SETTINGS | {"eps": 0.2})
    assert not figures.is_measured(workdir, checkpoint=CHECKPOINT, settings=SETTINGS)


def test_every_figure_is_drawn(workdir):
    assert list(figures.of_run(workdir)) == list(figures.FIGURES)
    for name, path in figures.of_run(workdir).items():
        with Image.open(path) as image:
            assert image.width == 1050, name
            assert len(np.unique(image.convert("L"))) > 8, f"{name} is all but empty"
        assert "<svg" in path.with_suffix(".svg").read_text()[:1000]


def drawn(draw, logits, labels):
    """Title and the titles of the panels of a figure of these predictions, clean and adversarial the same."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    r = measurement.correlation(*measurement.rate_and_similarity(logits, labels))
    facts = {"name": "last", "epoch": 0, "num_examples": len(labels), "class_names": list("abc")}
    facts["images"] = "test images"
    arrays = {"labels": labels, "clean": logits, "adversarial": logits}
    with style.style():
        figure = draw(facts | {"r": {"clean": r, "adversarial": r}}, arrays)
    return figure.get_suptitle(), [axis.get_title() for axis in figure.axes]


LOGITS = [[2, 1, 0], [5, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("labels", "title", "panels"),
    [
        (
            [0, 0, 1],
            "Two correct examples (",
            ("low confidence: $p_y$ = 0.576", "high confidence: $p_y$ = 0.976"),
        ),
        ([1, 0, 0], "One correct example, twice (", ("$p_y$ = 0.976", "$p_y$ = 0.976")),
        ([1, 2, 2], "Two incorrect examples (", ("$p_y$ = 0.007", "$p_y$ = 0.245")),
    ],
    ids=["correct", "one", "none"],
)
def test_figure_3_says_whose_distributions_it_shows(labels, title, panels):
    found, found_panels = drawn(margins.draw_distributions, LOGITS, labels)
    assert found.startswith(title)
    for panel, expected in zip(found_panels, panels, strict=True):
        assert panel.startswith(expected)


def test_figure_2_claims_no_relation_that_is_not_there():
    """With two classes m = 2 p_y - 1: equal margins are equal probabilities."""
    title, _ = drawn(margins.draw_margins, [[0, 0.4], [0, 1]], [0, 0])
    assert title.startswith("Margin against true class probability (")


def test_figure_4_claims_no_relation_that_is_not_there():
    """A network whose similarity falls with the incorrect rate."""
    title, panels = drawn(margins.draw_similarity, [[0, 0.4, -9], [0, 0, 0]], [0, 0])
    assert panels == ["clean images: r = -1.000", "under PGD-20: r = -1.000"]
    assert title.startswith("Similarity against incorrect rate (")


def test_histograms_of_logit_margins_count_every_example():
    """By hand: margins 1, 4, -2 and one that is NaN, which is in no bin; far ones are in the outermost bins."""
    logits = np.asarray([[2, 1, 0], [5, 1, 0], [0, 2, 0], [np.nan, 0, 0]] + [[1e6, 0, 0]] + [[3, 0, 0]] * 500)
    labels = np.zeros(len(logits), int)
    facts = {"name": "last", "epoch": 0, "num_examples": len(labels), "images": "test images"}
    with style.style():
        figure = margins.draw_logit_margins(facts, {"labels": labels, "clean": logits, "adversarial": logits})
    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.containers[0]) == 504
    low, high = axes.containers[0][0].get_x(), axes.containers[0][-1].get_x()
    assert -2.1 < low <= -0.1
    assert high < 10
    assert axes.containers[0][-1].get_height() >= 2  # 4, and the one of a million
    words = axes.get_legend().get_texts()[0].get_text()
    assert words == f"clean images: {100 * 503 / 505:.1f} % correct, median 3.00"


def test_a_run_without_histograms_has_all_other_figures(workdir, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("data.npz", "data.json"):
        (tmp_path / "figures" / name).write_bytes((workdir / "figures" / name).read_bytes())
    lines = [line | {"margins": None} for line in runs.read_metrics(workdir)]
    for line in lines:
        del line["margins"]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "results.json").write_text((workdir / "results.json").read_text())
    figures.draw_again(tmp_path)
    assert set(figures.FIGURES) - set(figures.of_run(tmp_path)) == {"weights"}


def test_weights_on_the_simplex_are_the_formulas():
    """MAIL at a point of the grid, by hand; NaN exactly where no distribution of 10 classes has the two."""
    mail = methods.get("mail").weighting(tiny.config().method, num_steps=10)
    weights = weighting.weights_on_simplex(mail, num_classes=10, resolution=20)
    p_y, p_2 = 0.225, 0.575
    assert weights[11, 4] == pytest.approx(3 / (1 + np.exp(10 * (p_y - p_2 + 0.5))), rel=1e-5)
    grid = (np.arange(20) + 0.5) / 20
    expected = [[p_2 < (1 - p_y) / 9 - 1e-9 or p_y + p_2 > 1 + 1e-9 for p_y in grid] for p_2 in grid]
    np.testing.assert_array_equal(np.isnan(weights), expected)


def test_wilsons_interval():
    """Known values: 0 of 10 and 5 of 10 (Wilson 1927, z = 1.96)."""
    np.testing.assert_allclose(
        robustness.wilson(np.array([0.0, 0.5]), 10), [[0, 0.2366], [0.2775, 0.7634]], atol=1e-3
    )


@pytest.mark.parametrize(
    ("eps", "label", "last"),
    [
        (0.1, "radius eps (share of the pixel range)", 0.2),
        (8 / 255, "radius eps (1/255 of the pixel range)", 16),
    ],
)
def test_the_axis_of_the_curve_is_in_the_unit_of_the_runs_eps(eps, label, last):
    facts = {"name": "last", "num_examples": 30, "num_steps": 20, "class_names": list("abc")}
    facts |= {"settings": {"norm": "linf", "eps": eps}, "curve": [[0.0, 90.0], [eps, 50.0], [2 * eps, 10.0]]}
    facts["images"] = "test images"
    (axis,) = robustness.draw_curve(facts, 40.0, chance=55.0).axes
    (chance,) = [line for line in axis.lines if line.get_label() == "always one class"]
    assert set(chance.get_ydata()) == {55.0}
    assert axis.get_xlabel() == label
    (curve,) = [line for line in axis.lines if line.get_label().startswith("PGD")]
    np.testing.assert_allclose(curve.get_xdata(), [0, last / 2, last], rtol=1e-12)
    (star,) = [line for line in axis.lines if line.get_label().startswith("AutoAttack")]
    np.testing.assert_allclose(star.get_xdata(), [last / 2], rtol=1e-12)


@pytest.mark.parametrize(
    ("clean", "adversarial", "words"),
    [
        (
            [0] * 10,
            [0] * 9 + [1],
            "The first 7 that withstand the attack and the first 1 that it fools; 90.0 % of 10",
        ),
        (
            [0] * 10,
            [0] * 5 + [1] * 5,
            "The first 4 that withstand the attack and the first 4 that it fools; 50.0 % of",
        ),
        ([0] * 10, [1] * 10, "The first 8 that the attack fools; 0.0 % of 10 test images withstand it"),
        ([1] * 10, [1] * 10, "The first 8 test images, since none is classified correctly"),
    ],
)
def test_the_examples_say_how_they_were_chosen(clean, adversarial, words):
    clean, adversarial = np.eye(3)[clean], np.eye(3)[adversarial]
    labels = np.zeros(10, np.int32)
    chosen = measurement._choose(clean, adversarial, labels)
    pixels = np.zeros((len(chosen), 8, 8, 1))
    arrays = {"clean": clean, "adversarial": adversarial, "labels": labels, "chosen": chosen}
    arrays |= {"images": pixels, "adversarial_images": pixels}
    facts = {
        "settings": {"norm": "linf", "eps": 0.1},
        "num_steps": 20,
        "class_names": list("abc"),
        "images": "test images",
    }
    title = robustness.draw_examples(facts, arrays).get_suptitle()
    assert words in title.splitlines()[1]


@pytest.mark.parametrize(("schedule", "number"), [("milestones", 2), ("one_cycle", 0)])
def test_drops_are_marked_where_the_learning_rate_drops(schedule, number):
    config = settings.as_json(tiny.config(optim__milestones=(1, 2, 9), optim__schedule=schedule))
    axis = learning_curves.draw_curves([], config, None).axes[0]
    assert len([line for line in axis.lines if line.get_linestyle() == ":"]) == number


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"objective__name": "trades"}, "MAIL-TRADES"),
        ({"awp__gamma": 0.01}, "MAIL-AWP"),
        ({}, "MAIL"),
    ],
)
def test_curves_are_named_as_rows_of_tables_are(fields, title):
    config = settings.as_json(tiny.config("mail", **fields))
    assert learning_curves.draw_curves([], config, None).get_suptitle() == f"{title}, seed 0"


def test_figures_that_a_kill_left_undrawn_are_drawn(workdir, tmp_path):
    """A file is whole or not there; the last one tells whether the others are of the same data."""
    run = shutil.copytree(workdir, tmp_path / "run")
    directory = run / "figures"
    assert figures.are_drawn(directory)
    calls = []

    def killed(figure, path):
        calls.append(path.name)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", killed)
        os.utime(directory / "data.json")  # as measured again
        with pytest.raises(KeyboardInterrupt):
            figures.draw_again(run)
    assert len(calls) == 1
    assert not figures.are_drawn(directory)
    figures.draw_again(run)
    assert figures.are_drawn(directory)
    (directory / "learning_curves.png").unlink()
    assert not figures.are_drawn(directory)


def test_a_figure_that_has_nothing_to_show_any_more_goes(workdir, tmp_path):
    """As the histograms of a run whose log has none."""
    run = shutil.copytree(workdir, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("weights", None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (run / "figures" / "weights.png").exists()
    figures.draw_again(run)
    assert not list((run / "figures").glob("weights.*"))


def test_figures_that_were_never_measured_are_told(workdir, tmp_path):
    shutil.copy(workdir / "results.json", tmp_path / "results.json")
    with pytest.raises(UserError, match=r"has no data of figures; .*figure_examples above 0"):
        figures.draw_again(tmp_path)
