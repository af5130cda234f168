"""The front: which methods no other one passes, where its labels stand, and where its picture goes."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from helpers.made_up_runs import put
from PIL import Image

from jaxrw import report, runs
from jaxrw.figures import front, style


def points_at(places):
    return [
        front.Point(f"method {i}, a constant 0.{i}", front.Estimate(across), front.Estimate(up, 0.5))
        for i, (across, up) in enumerate(places)
    ]


def test_the_front_is_what_no_other_point_passes_in_both():
    """Against the definition, point by point, with ties."""
    random = np.random.RandomState(0)
    for _ in range(50):
        places = random.randint(0, 6, (8, 2)).tolist()
        points = points_at(places)
        expected = {
            point.label
            for point, (x, y) in zip(points, places, strict=True)
            if not any((a >= x and b > y) or (a > x and b >= y) for a, b in places)
        }
        found = front.find_front(points)
        assert {point.label for point in found} == expected
        assert [p.across.mean for p in found] == sorted(p.across.mean for p in found)
        assert [p.up.mean for p in found] == sorted((p.up.mean for p in found), reverse=True)


@pytest.mark.parametrize("more", ["", ", an average of the parameters with a decay of 0.995 from epoch 7 on"])
@pytest.mark.parametrize("number", [2, 5, 25])
def test_labels_do_not_overlap_and_are_in_the_picture(number, more):
    """All points near each other, and one far off."""
    random = np.random.RandomState(number)
    places = [(30 + dx, 25 + dy) for dx, dy in random.normal(0, 0.05, (number - 1, 2))] + [(50, 10)]
    points = [dataclasses.replace(point, label=point.label + more) for point in points_at(places)]
    with style.style():
        figure = front.draw_front({"PGD-100": points, "Clean": points}, up="AutoAttack", diagonal="PGD-100")
        figure.draw_without_rendering()
    whole = figure.bbox
    assert figure.axes[0]._left_title.get_window_extent().x1 <= whole.x1
    for axis in figure.axes:
        texts = [t for t in axis.texts if t.get_text().startswith("method")]
        assert len(texts) == number
        for text in texts:  # A label's extent would include the line to its point.
            text.arrowprops = text.arrow_patch = None
        boxes = [text.get_window_extent() for text in texts]
        for box, other in itertools.combinations(boxes, 2):
            assert min(box.y1, other.y1) <= max(box.y0, other.y0) + 1
        for box in boxes:
            assert whole.width / 2 < axis.bbox.x1 < box.x0
            assert box.x1 <= whole.x1
            assert whole.y0 <= box.y0 <= box.y1 <= whole.y1


@pytest.fixture
def three_methods(tmp_path):
    for seed, (method, shift) in itertools.product(range(3), (("standard", 0), ("mail", 4), ("gairat", 2))):
        last = {"clean": 80.0 - shift + seed, "pgd100": 50.0 + shift + seed, "aa": 46.0 - shift + seed}
        put(tmp_path / "runs", f"{method}-{seed}", seed=seed, method=method, last=last)
    put(tmp_path / "runs", "ewat", method="ewat", last={"pgd100": 48.0})
    return tmp_path


def test_the_picture_is_in_every_format_and_beside_the_runs_for_the_second_copy(three_methods):
    report.run(three_methods / "runs", markdown_path=three_methods / "RESULTS.md")
    directory = three_methods / "runs" / "report"
    with Image.open(directory / "front.png") as image:
        assert image.format == "PNG"
        assert image.width == 1050
    assert (directory / "front.svg").read_text().count("<svg") == 1
    (link,) = re.findall(r"\]\(<(.*)>\)", (directory / "report.md").read_text())
    assert link == "front.png"
    (link,) = re.findall(r"\]\(<(.*)>\)", (three_methods / "RESULTS.md").read_text())
    assert link == "runs/front.png"
    assert (three_methods / link).read_bytes() == (directory / "front.png").read_bytes()
    page = (directory / "report.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/png;base64,iVBOR') == 1
    assert "Accuracy under AutoAttack against PGD-100 and Clean, last checkpoint" in page


def test_a_point_is_the_mean_over_seeds_with_students_interval(three_methods, monkeypatch):
    """Accuracies 54, 55, 56: mean 55, deviation 1, half an interval 4.303 / sqrt(3) = 2.484."""
    drawn = []
    draw = front.draw_front
    monkeypatch.setattr(
        front, "draw_front", lambda panels, **named: drawn.append(panels) or draw(panels, **named)
    )
    put(three_methods / "runs", "wmmr", method="wmmr", last={"pgd100": 49.0, "aa": 45.0})
    report.run(three_methods / "runs")
    (panels,) = drawn
    points = {point.label: point for point in panels["PGD-100"]}
    assert list(points) == ["Standard", "GAIRAT", "WMMR", "MAIL"]  # EWAT has no AutoAttack
    assert points["MAIL"].across == front.Estimate(55.0, pytest.approx(2.484, abs=1e-3))
    assert points["MAIL"].up == front.Estimate(43.0, pytest.approx(2.484, abs=1e-3))
    assert points["WMMR"] == front.Point("WMMR", front.Estimate(49.0), front.Estimate(45.0))
    assert list(panels) == ["PGD-100", "Clean"]
    assert len(panels["Clean"]) == 3


def test_settings_and_checkpoints_have_pictures_of_their_own(three_methods):
    scores = {"pgd100": 50.0, "aa": 45.0}
    for method in ("standard", "mail"):
        put(
            three_methods / "runs" / "b", method, method=method, last=scores, best=scores, attack__num_steps=7
        )
    report.run(three_methods / "runs")
    found = sorted(path.name for path in (three_methods / "runs" / "report").glob("*.png"))
    assert found == ["front-2-best.png", "front-2.png", "front.png"]


def test_a_checkpoint_that_is_of_the_warmup_has_no_picture_and_an_earlier_one_goes(three_methods):
    scores = {"pgd100": 50.0, "aa": 45.0}
    for method in ("gairat", "mail"):
        content = put(three_methods / "runs" / "b", method, method=method, last=scores, best=scores, seed=7)
        content["checkpoints"]["best"]["epoch"] = 3
        runs.write_json(three_methods / "runs" / "b" / method / "results.json", content)
    directory = three_methods / "runs" / "report"
    directory.mkdir()
    for name in ("front-best.png", "front-2.svg", "front-of-house.png"):
        (directory / name).touch()
    report.run(three_methods / "runs")
    assert "of the warm-up" in (directory / "report.md").read_text()
    found = sorted(path.name for path in directory.glob("front*"))
    assert found == ["front-of-house.png", "front.png", "front.svg"]


def test_one_method_is_no_front(tmp_path):
    put(tmp_path, "mail", last={"pgd100": 50.0, "aa": 45.0})
    report.run(tmp_path)
    assert not list((tmp_path / "report").glob("*.png"))


def test_the_first_two_attacks_stand_where_more_runs_have_them(tmp_path):
    """AutoAttack of one run of three; then of all."""
    last = {"pgd100": 50.0, "apgd_t": 45.0}
    for method in ("standard", "mail", "gairat"):
        put(tmp_path / "few", method, method=method, last=last | ({"aa": 44.0} if method == "mail" else {}))
        put(tmp_path / "all", method, method=method, last=last | {"aa": 44.0})
    for name, words in (("few", "APGD-CE+T"), ("all", "AutoAttack")):
        report.run(tmp_path / name)
        page = (tmp_path / name / "report" / "report.html").read_text()
        assert f"Accuracy under {words} against PGD-100, last checkpoint" in page
