"""The reports in a real browser; run with "make test-browser"."""

import os
import pathlib
import shutil

import pytest
from commands import run

pytestmark = pytest.mark.browser
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def page():
  """A page of headless Chromium, with what it complained of."""
  playwright = pytest.importorskip("playwright.sync_api")
  installed = next(filter(None, map(shutil.which, _BROWSERS)), None)
  with playwright.sync_playwright() as p:
    browser = p.chromium.launch(
      executable_path=installed, args=["--no-sandbox"]
    )
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.complaints = []
    page.on(
      "console",
      lambda m: m.type == "error" and page.complaints.append(m.text),
    )
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    page.on("requestfailed", lambda r: page.complaints.append(r.url))
    yield page
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  """The report of $W2L_DEMO, a finished demo's folder, or of a tiny one."""
  folder = os.environ.get("W2L_DEMO")
  if not folder:
    from launch import demo

    folder = str(tmp_path_factory.mktemp("demo"))
    demo.run(folder, seed=0, size="tiny", workers=2)
  return pathlib.Path(folder).resolve() / "report.html"


@pytest.fixture(scope="module")
def evaluation(report, tmp_path_factory):
  """launch.evaluate's report of the demo's generator."""
  demo, out = report.parent, tmp_path_factory.mktemp("evaluation")
  done = run(
    "evaluate",
    f"--checkpoint={demo / 'generator'}",
    f"--expert={demo / 'expert'}",
    f"--data_dir={demo / 'data'}",
    f"--outdir={out}",
    "--config.clips=3",
  )
  assert done.returncode == 0, done.stderr
  return out / "report.html"


def open_page(page, report):
  """Opens a report, which may ask for nothing but its own files."""
  requests = []
  page.on("request", lambda request: requests.append(request.url))
  page.goto(report.as_uri())
  page.wait_for_load_state("networkidle")
  own = report.parent.as_uri()
  assert all(u.startswith((own, "data:")) for u in requests), requests


def check_page(page, picture):
  """What every report has to be: readable, whole, without complaints."""
  # Pictures have loaded and plots have a size.
  assert page.evaluate(
    "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
  )
  assert page.evaluate(
    "[...document.querySelectorAll('svg')].map("
    "s => s.getBoundingClientRect().width).every(w => w > 200)"
  )
  # Nothing sticks out of the window.
  assert page.evaluate("document.documentElement.scrollWidth") <= 1100
  page.screenshot(path=str(picture), full_page=True)
  assert picture.stat().st_size > 50_000
  assert not page.complaints


def test_the_evaluation_opens_and_plays(page, evaluation, tmp_path):
  open_page(page, evaluation)
  assert page.evaluate("document.querySelectorAll('svg').length") >= 5
  videos = "[...document.querySelectorAll('video')]"
  count = page.evaluate(f"{videos}.length")
  assert 1 <= count <= 3
  assert page.evaluate(f"{videos}.every(v => v.duration > 0.5)")
  page.evaluate(f"{videos}.forEach(v => {{ v.muted = true; v.play(); }})")
  page.wait_for_function(
    f"{videos}.every(v => v.currentTime > 0.3)", timeout=20_000
  )
  page.click("text=What each measure is")
  assert page.is_visible("text=mean absolute difference from the truth")
  check_page(page, tmp_path / "evaluation.png")


def test_the_report_opens_and_plays(page, report, tmp_path):
  open_page(page, report)
  for name in ("before", "after"):
    assert page.evaluate(f"document.getElementById('{name}').duration") > 0.5
    assert page.evaluate(f"document.getElementById('{name}').videoWidth") == 256
  page.click("#both")
  page.wait_for_function(
    "['before', 'after'].every("
    "i => document.getElementById(i).currentTime > 0.3)",
    timeout=20_000,
  )
  check_page(page, tmp_path / "report.png")


def test_the_report_of_a_prepared_set(page, data_dir, tmp_path):
  open_page(page, pathlib.Path(data_dir) / "report.html")
  assert page.evaluate("document.images.length") == 6
  assert page.is_visible("text=records (face tracks)")
  check_page(page, tmp_path / "set.png")
