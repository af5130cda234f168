"""results.json: what is read, what is dropped, and what a later evaluation keeps of it."""

import base64
import json

import numpy as np
import pytest
from helpers import tiny
from helpers.made_up_runs import put

from jaxrw import settings
from jaxrw.attacks import suite
from jaxrw.runs import packed, results
from jaxrw.runs.json_files import UnusableFileError, read_object

LAST = {"epoch": 2, "step": 12}


def test_what_is_written_is_what_is_read(tmp_path):
    content = put(tmp_path, "mail", last={"aa": 40.0}, best={"clean": 80.0})
    assert results.read_results(tmp_path / "mail") == content
    results.write_results(tmp_path, content)
    assert (tmp_path / "results.json").read_bytes() == (tmp_path / "mail" / "results.json").read_bytes()
    assert results.read_results(tmp_path / "nowhere") is None


def test_checkpoints_of_other_names_are_dropped(tmp_path):
    content = put(tmp_path, "mail", last={"aa": 40.0})
    content["checkpoints"]["middle"] = "x"
    results.write_results(tmp_path, content)
    assert list(results.read(tmp_path / "results.json")["checkpoints"]) == ["last", "best"]


def test_weights_from_elsewhere_need_no_method_and_no_epoch(tmp_path):
    content = put(tmp_path, "mail")
    for section in ("method", "attack", "optim"):
        del content["config"][section]
    checkpoint = {"path": "x.pt", "sha256": "0", "num_examples": 30, "accuracy": {"clean": 50.0}}
    results.write_results(tmp_path, content | {"checkpoints": {"file": checkpoint}})
    assert results.read(tmp_path / "results.json")["checkpoints"]["file"] == checkpoint
    results.write_results(tmp_path, content)
    with pytest.raises(UnusableFileError, match=r"config.method.name is missing"):
        results.read(tmp_path / "results.json")


@pytest.mark.parametrize("field", ["epoch", "step", "num_examples"])
@pytest.mark.parametrize("value", [None, -1, 1.5, "1", True, 2**60])
def test_counts_of_a_checkpoint(tmp_path, field, value):
    content = put(tmp_path, "mail", last={"aa": 40.0})
    content["checkpoints"]["last"][field] = value
    results.write_results(tmp_path, content)
    with pytest.raises(UnusableFileError, match=f"checkpoints.last has {field} .*; must be an integer of at"):
        results.read(tmp_path / "results.json")


def begun(earlier, **fields):
    config = tiny.config(**fields)
    identities = {"last": LAST, "best": None}
    return results.begin_results(config, num_examples=30, chance=20.0, earlier=earlier, identities=identities)


def test_accuracies_are_kept_of_the_same_step_and_settings():
    """The clean accuracy has no eps; FGSM has."""
    first = begun(None)
    assert first["checkpoints"]["best"] is None
    assert first["checkpoints"]["last"] == LAST | {
        "num_examples": 30,
        "chance": 20.0,
        "accuracy": dict.fromkeys(suite.ATTACKS),
    }
    results.record(first["checkpoints"]["last"], "clean", 50.0, None, "of clean")
    results.record(first["checkpoints"]["last"], "fgsm", 40.0, None, "of FGSM")
    results.record(first["checkpoints"]["last"], "pgd20", 35.0, None)  # as of an earlier version
    results.record(first["checkpoints"]["last"], "aa", 30.0, {"seconds": 1}, "of AA")
    assert first["checkpoints"]["last"]["correct"] == {
        "clean": "of clean",
        "fgsm": "of FGSM",
        "aa": "of AA",
    }
    assert begun(first)["checkpoints"] == first["checkpoints"]
    assert json.dumps(begun(first)["checkpoints"]) == json.dumps(first["checkpoints"])
    other = begun(first, evaluation__eps=0.05)["checkpoints"]["last"]
    assert (other["accuracy"]["clean"], other["accuracy"]["fgsm"], other["accuracy"]["aa"]) == (
        50.0,
        None,
        None,
    )
    assert "autoattack" not in other
    assert other["correct"] == {"clean": "of clean"}
    first["checkpoints"]["last"]["step"] = 8
    assert set(begun(first)["checkpoints"]["last"]["accuracy"].values()) == {None}


def test_settings_that_no_asked_column_has_stay_as_they_were():
    """AutoAttack with a surrogate, then PGD alone with the default, which is none: AutoAttack's number stays."""
    fields = {"evaluation__surrogate": "bfloat16", "evaluation__version": "plus"}
    first = begun(None, evaluation__attacks=("aa",), **fields)
    results.record(first["checkpoints"]["last"], "aa", 30.0, None)
    later = begun(first, evaluation__attacks=("pgd20",))
    assert later["checkpoints"]["last"]["accuracy"]["aa"] == 30.0
    kept = later["config"]["evaluation"]
    assert (kept["surrogate"], kept["version"], kept["attacks"]) == ("bfloat16", "plus", ["pgd20"])
    other = begun(later, evaluation__attacks=("apgd_t",))  # asks for no surrogate
    assert other["checkpoints"]["last"]["accuracy"]["aa"] is None
    assert other["config"]["evaluation"]["surrogate"] == "none"


def test_results_that_lack_an_attack_or_its_details_are_kept():
    """An older version knew fewer attacks."""
    first = begun(None)
    first["checkpoints"]["last"]["accuracy"] = {"clean": 50.0, "aa": 40.0}
    again = begun(first)["checkpoints"]["last"]
    assert again["accuracy"] == dict.fromkeys(suite.ATTACKS) | {"clean": 50.0, "aa": 40.0}
    assert "autoattack" not in again


def test_the_other_checkpoint_of_the_same_step():
    first = begun(None)
    last = first["checkpoints"]["last"]
    first["checkpoints"]["best"] = json.loads(json.dumps(last))
    assert results.already_measured(first, first["checkpoints"]["best"], "aa") is None
    results.record(last, "aa", 40.0, {"seconds": 1}, "of AA")
    known = results.already_measured(first, first["checkpoints"]["best"], "aa")
    assert known == (40.0, {"seconds": 1}, "of AA")
    del last["correct"]
    assert results.already_measured(first, first["checkpoints"]["best"], "aa") == (
        40.0,
        {"seconds": 1},
        None,
    )
    last["step"] = 8
    assert results.already_measured(first, first["checkpoints"]["best"], "aa") is None


@pytest.mark.parametrize("size", [1, 8, 9, 10_000])
def test_flags_of_images_are_a_text(size):
    """Each bit as Python's integers have it, the first image in the highest."""
    flags = np.random.RandomState(size).rand(size) < 0.5
    text = packed.pack(flags)
    padded = [*flags, *([False] * (-size % 8))]
    number = int("".join(str(int(flag)) for flag in padded), 2)
    assert base64.b64decode(text) == number.to_bytes(len(padded) // 8, "big")
    np.testing.assert_array_equal(packed.unpack(text, size), flags)


@pytest.mark.parametrize(
    ("correct", "words"),
    [
        ([], "correct is .*must be of type dict"),
        ({"aa": None}, "correct.aa is None; must be of type str"),
        ({"aa": "no text"}, "correct.aa is no base64"),
        ({"aa": "wA=="}, "correct.aa is not of 10 images"),
        ({"aa": "//8="}, "correct.aa is not of 10 images"),  # 16 bits, the last of no image
        ({"aa": "4AA="}, "correct.aa is of 30.00 percent, and the accuracy 40.0"),
        ({"clean": "AAA="}, "correct.clean is of 0.00 percent, and the accuracy None"),
    ],
)
def test_which_images_are_correct_fits_their_number_and_the_accuracy(tmp_path, correct, words):
    content = put(tmp_path, "mail", last={"aa": 40.0})
    last = content["checkpoints"]["last"]
    last |= {"num_examples": 10, "correct": {"aa": "8AA=", "of a later version": 7}}
    results.write_results(tmp_path, content)
    assert results.read(tmp_path / "results.json") == content
    last["correct"] = correct
    results.write_results(tmp_path, content)
    with pytest.raises(UnusableFileError, match=f"checkpoints.last.{words}"):
        results.read(tmp_path / "results.json")


def test_a_reason_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(settings.as_json(tiny.config())))
    assert read_object(tmp_path / "config.json")["seed"] == 0
    assert str(UnusableFileError("a\nname  of\u2028lines")) == "a name of lines"
    (tmp_path / "large.json").write_bytes(b" " * 20_000_001)
    with pytest.raises(UnusableFileError, match=r"large.json is larger than 20,000,000 bytes"):
        read_object(tmp_path / "large.json")
