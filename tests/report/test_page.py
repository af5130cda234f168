"""The report's page in a browser, where there is one: no error, every picture shown, nothing wider than the screen."""

import json
import re
import shutil
import subprocess

import pytest
from helpers.made_up_runs import put
from PIL import Image

from jaxrw import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here; apt-get install chromium")

# Put into a copy of the page, which itself runs no script: what a browser made of it, as the title of the window.
PROBE = """<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  const pictures = [...document.images];
  Promise.allSettled(pictures.map(picture => picture.decode())).then(() => {
    parent.document.title = "PROBE" + JSON.stringify({
      pictures: pictures.length,
      shown: pictures.filter(p => p.complete && p.naturalWidth > 0 && p.getBoundingClientRect().width > 50).length,
      width: document.documentElement.scrollWidth,
      screen: innerWidth,
      columns: [...document.querySelectorAll(".accuracies")].map(table => [...table.rows].map(row =>
        [...row.cells].map(cell => [cell.getBoundingClientRect().left, cell.getBoundingClientRect().right]))),
      titles: [...document.querySelectorAll(".accuracies thead tr")].map(row =>
        [...row.cells].map(cell => cell.textContent)),
    });
  });
});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with wide tables, long names and two pictures."""
    root = tmp_path_factory.mktemp("runs")
    every = dict.fromkeys(("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa"), 50.0)
    for seed in range(2):
        put(root, f"a-rather-long-name-of-a-directory-without-any-space/mail-{seed}", seed=seed, last=every)
    put(root, "ours", method="ours_mail", last={"pgd100": 51.0}, method__similarity=False)
    (root / "broken").mkdir()
    (root / "broken" / "results.json").write_text("{")
    (root / "ours" / "figures").mkdir()
    for name in ("learning_curves", "weights"):
        Image.new("RGB", (1050, 500), "navy").save(root / "ours" / "figures" / f"{name}.png")
    report.run(root)
    return root / "report" / "report.html"


def browse(path, *arguments):
    """Standard output and error of a browser that opens a file."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--window-size=1500,1600", "--virtual-time-budget=4000", *arguments, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.stdout, done.stderr


def test_it_logs_nothing(page, tmp_path):
    _, errors = browse(page, f"--screenshot={tmp_path / 'page.png'}")
    assert "CONSOLE" not in errors
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1500, 1600)


@pytest.mark.parametrize("width", [400, 1400])
def test_pictures_and_width(page, width, tmp_path):
    """In a frame, since a window has a smallest width."""
    text = page.read_text().replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    (tmp_path / "probe.html").write_text(text.replace("</body>", PROBE))
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<title>x</title><iframe src="probe.html" width="{width}" height="900" style="border:0"></iframe>'
    )
    for _ in range(3):  # on a busy machine the page may be handed out before the probe has run
        shown, errors = browse(outer, "--dump-dom", "--allow-file-access-from-files")
        assert "CONSOLE" not in errors
        if match := re.search(r"<title>PROBE(.*?)</title>", shown):
            break
    found = json.loads(match[1])
    assert found["pictures"] == found["shown"] == 2
    assert found["width"] <= found["screen"] == width
    # AutoAttack is seen beside PGD without scrolling.
    for titles, rows in zip(found["titles"], found["columns"], strict=True):
        pgd = next(number for number, title in enumerate(titles) if title.startswith("PGD"))
        assert titles[-1] == "AA"
        for row in rows:
            assert row[0][1] <= row[pgd][0] < row[pgd][1] <= row[-1][0] < row[-1][1] <= width, (titles, row)
