"""Evaluation of runs: what is measured, kept and measured again, export, and adversarial images that are kept."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from helpers.tiny import with_attacks

from jaxrw import evaluate, measure, networks, report, runs, train
from jaxrw.attacks import autoattack
from jaxrw.networks import torch_weights
from jaxrw.runs.packed import unpack
from jaxrw.system.errors import Stopped, UserError
from jaxrw.training import step
from jaxrw.training.accuracy import Evaluator
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment, create_experiment


@pytest.fixture
def short_autoattack(monkeypatch):
    def short(*arguments, **options):
        return autoattack(*arguments, **options, num_steps=3, num_queries=10)

    monkeypatch.setattr(measure, "autoattack", short)


def test_corrupted_images_are_a_column(run, tmp_path, capsys):
    """Two corruptions: the test images themselves, and half of them black; counted one by one with NumPy."""
    config, workdir = run
    experiment = create_experiment(config)
    test = experiment.dataset.test
    black = np.where(np.arange(30)[:, None, None, None] < 15, test.images, 0).astype(np.uint8)
    files = {"labels": test.labels, "none": test.images, "black": black}
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array)
    own = shutil.copytree(workdir, tmp_path / "run")
    config = with_attacks("clean", "corruptions", evaluation__corruptions_dir=str(tmp_path))
    checkpoint = evaluate.run(config, own, checkpoint="last")["checkpoints"]["last"]
    variables = step.replicate(checkpoint_variables(config, own))
    found = checkpoint["corruptions"]
    for name, accuracy in found.items():
        logits = experiment.model.apply(variables, files[name] / np.float32(255), train=False)
        assert accuracy == pytest.approx(100 * np.mean(np.argmax(logits, 1) == test.labels))
    assert found["none"] == checkpoint["accuracy"]["clean"]
    assert found["black"] < found["none"]
    assert checkpoint["accuracy"]["corruptions"] == pytest.approx(np.mean(list(found.values())))
    table = report.table({"run": json.loads((own / "results.json").read_text())})
    assert "Corrupted" in table
    again = evaluate.run(config, own, checkpoint="last")["checkpoints"]["last"]
    assert again == checkpoint  # and nothing has been measured again


def checkpoint_variables(config, workdir):
    with evaluate.open_run(config, workdir) as opened:
        return opened.restore("last")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"attacks": ("corruptions",)},
            "evaluation.corruptions_dir is None; evaluation.attacks has 'corruptions'",
        ),
        ({"attacks": ("clean",), "corruptions_dir": "elsewhere"}, "add 'corruptions' to evaluation.attacks"),
        ({"attacks": ("corruptions",), "corruptions_dir": "elsewhere"}, "labels.npy cannot be used"),
    ],
)
def test_corruptions_that_cannot_be_measured_are_told_first(fields, words, run, tmp_path):
    _, workdir = run
    own = shutil.copytree(workdir, tmp_path / "run")
    config = with_attacks("clean", **{f"evaluation__{name}": value for name, value in fields.items()})
    with pytest.raises(UserError, match=words):
        evaluate.run(config, own, checkpoint="last")
    with pytest.raises(UserError, match=words):  # and not after hours
        train.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_adversarial_images_are_kept_and_are_worth_the_recorded_accuracy(run, tmp_path, short_autoattack):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    attacks = ("clean", "pgd20", "aa")
    config = with_attacks(*attacks, evaluation__save_adversarial=True, evaluation__eps=0.05)
    plain = with_attacks(*attacks, evaluation__eps=0.05)
    results = evaluate.run(plain, workdir, checkpoint="last")
    before = results["checkpoints"]["last"]["accuracy"]
    assert not list(workdir.glob("adversarial-*"))
    after = evaluate.run(config, workdir, checkpoint="last")["checkpoints"]["last"]["accuracy"]
    assert after == before
    experiment = create_experiment(config)
    variables = torch_weights.load(workdir / "last.safetensors", model=experiment.model, num_classes=10)
    logits_fn = jax.jit(step.logits_function(experiment.model, variables))
    clean = np.asarray(to_pixels(experiment.dataset.test.images))
    correct = results["checkpoints"]["last"]["correct"]
    assert evaluate.run(plain, workdir, checkpoint="last")["checkpoints"]["last"]["correct"] == correct
    flags = np.asarray(logits_fn(clean)).argmax(1) == experiment.dataset.test.labels
    np.testing.assert_array_equal(unpack(correct["clean"], 30), flags)
    names = sorted(path.name for path in workdir.glob("adversarial-*"))
    assert names == [f"adversarial-last-{attack}.npz" for attack in sorted(attacks[1:])]
    for attack in attacks[1:]:
        with np.load(workdir / f"adversarial-last-{attack}.npz") as kept:
            assert np.abs(kept["images"] - clean).max() <= 0.05 + 2**-23
            np.testing.assert_array_equal(kept["labels"], experiment.dataset.test.labels)
            flags = np.asarray(logits_fn(kept["images"])).argmax(1) == kept["labels"]
            np.testing.assert_array_equal(flags, kept["correct"])
            np.testing.assert_array_equal(flags, unpack(correct[attack], 30))
            assert 100 * int(flags.sum()) / len(flags) == after[attack]
    # What an earlier version measured lacks them: it is not measured again.
    del results["checkpoints"]["last"]["correct"]
    runs.write_json(workdir / "results.json", results)
    again = evaluate.run(with_attacks(*attacks, "fgsm", evaluation__eps=0.05), workdir, checkpoint="last")
    assert list(again["checkpoints"]["last"]["correct"]) == ["fgsm"]
    # Images of another eps do not stay behind, to be taken for this one's.
    evaluate.run(with_attacks("pgd20", evaluation__eps=0.06), workdir, checkpoint="last")
    assert not (workdir / "adversarial-last-pgd20.npz").exists()
    assert before["pgd20"] < before["clean"]  # images that changed nothing would prove nothing


def test_export_on_the_command_line_reads_back(run, tmp_path):
    config, workdir = run
    model = networks.create("wrn", 10, depth=10, width=1)
    variables = torch_weights.load(workdir / "best.safetensors", model=model, num_classes=10)
    with evaluate.open_run(config, workdir) as opened:
        jax.tree.map(np.testing.assert_array_equal, variables, dict(opened.restore("best")))


def test_no_weights_are_drawn_to_restore_others(run, monkeypatch):
    """They would be there twice, and take seconds to compile. Restored ones lie where `replicate` puts arrays."""
    config, workdir = run
    monkeypatch.setattr(Experiment, "create_state", None)
    with evaluate.open_run(config, workdir) as opened:
        variables, experiment = opened.restore("last"), opened.experiment
    expected = torch_weights.load(workdir / "last.safetensors", model=experiment.model, num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, dict(variables), expected)
    # Placed otherwise, they would have every program compiled once more.
    assert {leaf.sharding for leaf in jax.tree.leaves(variables)} == {step.replicate(np.zeros(1)).sharding}


def test_asked_to_stop_it_says_how_to_go_on(run, tmp_path, monkeypatch):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    measure = Evaluator.measure

    def interrupted(self, attack, variables, progress):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(600):  # A thread takes the signal up: a moment may pass.
            progress(0)
            time.sleep(0.1)
        return measure(self, attack, variables, progress)

    monkeypatch.setattr(Evaluator, "measure", interrupted)
    with pytest.raises(
        Stopped, match=r"^stopped by SIGTERM; the same command goes on from what has been saved$"
    ):
        evaluate.run(with_attacks("clean"), workdir)


def test_a_run_in_another_norm_says_so(tmp_path, capsys, short_autoattack):
    settings = {"norm": "l2", "eps": 0.04, "step_size": 0.02}
    config = with_attacks(
        "clean",
        "fgsm",
        "aa",
        optim__num_epochs=1,
        evaluation__figure_examples=8,
        evaluation__figure_eps=(0.0, 1.0),
        **{
            f"{section}__{name}": value
            for section in ("attack", "evaluation")
            for name, value in settings.items()
        },
    )
    config.attack.num_steps = 1
    experiment = train.run(config, tmp_path / "run")
    # Told once, before anything is trained.
    assert "warning: attack.eps is 0.04 for norm 'l2'" in capsys.readouterr().err
    results = evaluate.run(config, tmp_path / "run", experiment=experiment, checkpoint="last")
    last = results["checkpoints"]["last"]
    assert (last["autoattack"]["norm"], last["autoattack"]["version"]) == ("l2", "standard")
    assert last["accuracy"]["aa"] is not None
    # In L-infinity a radius of 0.04 allows much more, and is measured anew.
    config.evaluation.norm = "linf"
    again = evaluate.run(config, tmp_path / "run", checkpoint="last")
    assert again["checkpoints"]["last"]["accuracy"]["fgsm"] <= last["accuracy"]["fgsm"]
    assert again["checkpoints"]["last"]["autoattack"]["norm"] == "linf"
    report.run(tmp_path / "run", tmp_path / "report")
    assert (
        "eps 0.04 (L2) in training, 10.2/255 in evaluation" in (tmp_path / "report" / "report.md").read_text()
    )


def test_the_first_two_attacks_of_autoattack_are_a_column(run, tmp_path, short_autoattack):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    config = with_attacks("apgd_t", "aa", evaluation__eps=0.05)
    checkpoint = evaluate.run(config, workdir, checkpoint="last")["checkpoints"]["last"]
    accuracy, two, whole = checkpoint["accuracy"], checkpoint["apgd_t"], checkpoint["autoattack"]
    assert list(two["accuracy"]) == ["apgd-ce", "apgd-t"]
    assert accuracy["apgd_t"] == two["accuracy"]["apgd-t"] == whole["accuracy"]["apgd-t"] >= accuracy["aa"]
    assert not list(workdir.glob("*-last*.npz"))
    # A setting that no column has that is asked for does not matter, the radius does.
    plus = with_attacks("clean", evaluation__eps=0.05, evaluation__version="plus")
    results = evaluate.run(plus, workdir, checkpoint="last")
    kept = results["checkpoints"]["last"]
    assert {name: kept["accuracy"][name] for name in ("apgd_t", "aa")} == {
        name: accuracy[name] for name in ("apgd_t", "aa")
    }
    assert kept["apgd_t"]["fooled"] == two["fooled"]
    assert results["config"]["evaluation"]["version"] == kept["autoattack"]["version"] == "standard"
    wider = with_attacks("clean", evaluation__eps=0.06)
    assert (
        evaluate.run(wider, workdir, checkpoint="last")["checkpoints"]["last"]["accuracy"]["apgd_t"] is None
    )


def test_autoattack_of_a_run_asks_a_surrogate(run, tmp_path, short_autoattack):
    """A change of the surrogate has AutoAttack, and nothing else, measured again."""
    _, workdir = run
    copy = shutil.copytree(workdir, tmp_path / "run")
    config = with_attacks("clean", "fgsm", "aa", evaluation__eps=0.05)
    alone = evaluate.run(config, copy, checkpoint="last")["checkpoints"]["last"]
    assert (alone["autoattack"]["surrogate"], alone["autoattack"]["unconfirmed"]) == ("none", 0)
    config.evaluation.surrogate = "bfloat16"
    last = evaluate.run(config, copy, checkpoint="last")["checkpoints"]["last"]
    assert last["accuracy"]["fgsm"] == alone["accuracy"]["fgsm"]
    assert last["accuracy"]["aa"] == pytest.approx(alone["accuracy"]["aa"], abs=7)  # 2 of 30 images
    assert last["autoattack"]["surrogate"] == "bfloat16"


def test_a_surrogate_computes_in_its_precision(run):
    config, workdir = run
    with evaluate.open_run(config, workdir) as opened:
        variables, experiment = opened.restore("last"), opened.experiment
    images = np.zeros((2, 8, 8, 1), np.float32)

    def program(name):
        surrogate = experiment.surrogate(name, variables)
        return str(jax.make_jaxpr(surrogate)(images))

    assert experiment.surrogate("none", variables) is None
    assert "bf16" in program("bfloat16")
    assert "precision=(Precision.HIGH, Precision.HIGH)" in program("tensorfloat32")
    with jax.default_matmul_precision("highest"):  # As in AutoAttack.
        assert "bf16" not in program("tensorfloat32")
        assert "HIGHEST" not in program("tensorfloat32")


def test_a_run_of_an_earlier_version_had_the_only_norm(run, tmp_path):
    """What it lacks is what there was: nothing is refused and nothing measured again."""
    _, workdir = run
    config = with_attacks("clean", "fgsm")
    copy = shutil.copytree(workdir, tmp_path / "run")
    evaluate.run(config, copy)
    for name in "config.json", "results.json":
        content = json.loads((copy / name).read_text())
        stored = content["config"] if name == "results.json" else content
        for section in "attack", "evaluation":
            del stored[section]["norm"]
        del stored["evaluation"]["version"]
        if name == "results.json":
            content["checkpoints"]["last"]["accuracy"]["fgsm"] = 12.5  # would not come out again
            del content["checkpoints"]["last"]["correct"]
        (copy / name).write_text(json.dumps(content))
    assert evaluate.run(config, copy)["checkpoints"]["last"]["accuracy"]["fgsm"] == 12.5
    config.evaluation.norm = "l2"
    assert evaluate.run(config, copy)["checkpoints"]["last"]["accuracy"]["fgsm"] != 12.5


def test_an_evaluation_is_never_more_than_a_batch_ahead_of_the_device(run):
    """A batch counts when its result is here, so that a signal is seen within two batches."""
    experiment = create_experiment(run[0])
    evaluator = Evaluator(
        experiment.evaluation_model,
        experiment.dataset.test,
        experiment.evaluation_key,
        {"clean": lambda *arguments, **options: None},
        batch_size=8,
    )
    given, counted = [], []

    class Outputs:
        def __init__(self, index):
            self.index = np.asarray(index)

        def __array__(self, dtype=None, copy=None):
            counted.append(self.index)
            return self.index

    def program(variables, key, images, labels, index):
        assert len(given) - len(counted) <= 1
        given.append(index)
        return Outputs(index)

    evaluator._programs["clean"] = program
    seen = []
    measured = evaluator.measure("clean", None, lambda number: seen.append((number, len(counted))))
    assert [number for number, _ in seen] == [8, 8, 8, 6]
    assert [done for _, done in seen] == [1, 2, 3, 4]
    assert measured.accuracy == 100


def test_results_under_other_settings_are_kept(run, tmp_path, capsys):
    """Evaluating the best checkpoint with another eps drops the last one's accuracies from results.json."""
    workdir = shutil.copytree(run[1], tmp_path / "run")
    first = evaluate.run(with_attacks("clean", "pgd20"), workdir)
    capsys.readouterr()
    second = evaluate.run(with_attacks("clean", "pgd20", evaluation__eps=0.02), workdir, checkpoint="best")
    assert second["checkpoints"]["last"]["accuracy"]["pgd20"] is None
    assert json.loads((workdir / "results-1.json").read_text()) == first
    err = capsys.readouterr().err
    assert "results-1.json keeps what was measured with other settings" in err
    assert "last pgd20" in err
    evaluate.run(with_attacks("clean", "pgd20", evaluation__eps=0.02), workdir)
    assert not (workdir / "results-2.json").exists()


def test_what_was_kept_is_not_measured_again(run, tmp_path, monkeypatch):
    """Three radii in turn: each is measured once, and kept once."""
    workdir = shutil.copytree(run[1], tmp_path / "run")
    measured, measure_one = [], Evaluator.measure

    def counted(evaluator, attack, *arguments):
        measured.append(attack)
        return measure_one(evaluator, attack, *arguments)

    monkeypatch.setattr(Evaluator, "measure", counted)
    found = {}
    for eps in (0.1, 0.02, 0.1, 0.02, 0.05, 0.1):
        config = with_attacks("clean", "pgd20", evaluation__eps=eps)
        last = evaluate.run(config, workdir, checkpoint="last")["checkpoints"]["last"]
        assert found.setdefault(eps, last) == last
    assert measured.count("pgd20") == 3
    assert sorted(path.name for path in workdir.glob("results-*.json")) == [
        f"results-{number}.json" for number in (1, 2, 3)
    ]


def test_adversarial_images_under_other_settings_are_kept(run, tmp_path, capsys):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    evaluate.run(with_attacks("fgsm", evaluation__save_adversarial=True), workdir, checkpoint="last")
    before = (workdir / "adversarial-last-fgsm.npz").read_bytes()
    evaluate.run(with_attacks("fgsm", evaluation__eps=0.02), workdir, checkpoint="last")
    assert (workdir / "adversarial-last-fgsm-1.npz").read_bytes() == before
    assert not (workdir / "adversarial-last-fgsm.npz").exists()
    assert "results-1.json keeps" in capsys.readouterr().err


def test_the_selection_that_chose_the_best_checkpoint_stays(run, tmp_path, capsys):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    config = with_attacks("clean", evaluation__selection_steps=3)
    results = evaluate.run(config, workdir, checkpoint="last")
    assert results["config"]["evaluation"]["selection_steps"] == 2
    assert "evaluation.selection_steps is 3" in capsys.readouterr().err
    assert config.evaluation.selection_steps == 3  # the caller's is not changed


def test_results_under_other_settings_are_kept_once_if_the_evaluation_is_stopped(run, tmp_path, monkeypatch):
    workdir = shutil.copytree(run[1], tmp_path / "run")
    evaluate.run(with_attacks("clean", "pgd20"), workdir)

    def stopped(*arguments, **options):
        raise Stopped("stopped by a test")

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "measure", stopped)
        for _ in range(2):
            with pytest.raises(Stopped):
                evaluate.run(with_attacks("clean", "pgd20", evaluation__eps=0.02), workdir)
    evaluate.run(with_attacks("clean", "pgd20", evaluation__eps=0.02), workdir)
    assert [path.name for path in sorted(workdir.glob("results*.json"))] == ["results-1.json", "results.json"]


def test_a_run_tells_whether_it_was_trained_to_its_end(run, tmp_path, monkeypatch):
    config, workdir = run
    workdir = shutil.copytree(workdir, tmp_path / "run")
    assert evaluate.run(config, workdir)["finished"] is True
    # As a stop within the last validation leaves it: the last checkpoint may still become the best.
    monkeypatch.setattr(evaluate.checkpoints, "is_validated", lambda manager, step, num_images: False)
    assert evaluate.run(config, workdir)["finished"] is False
