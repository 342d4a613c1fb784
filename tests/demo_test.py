"""A shrunken demo: all its steps, its report, and its restart."""

import html.parser
import importlib.util
import json
import os

import pytest

from launch import demo
from w2l_jax import video

pytestmark = [
  pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="no espeakng-loader wheel for this platform",
  ),
  pytest.mark.xdist_group("demo"),
]


@pytest.fixture(scope="session")  # Other modules may run between.
def workdir(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("demo"))
  demo.run(folder, seed=0, size="tiny", workers=2)
  return folder


def summary_of(workdir):
  with open(os.path.join(workdir, "summary.json")) as f:
    return json.load(f)


def test_everything_is_there(workdir):
  summary = summary_of(workdir)
  for name in (
    "expert_accuracy", "mouth_correlation", "mouth_correlation_input",
    "sync_loss_generated", "sync_loss_real",
  ):  # fmt: skip
    assert isinstance(summary[name], float)
  assert set(summary["seconds"]) == {
    "corpus", "preparation", "expert", "generator", "evaluation", "lip-sync",
    "report",
  }  # fmt: skip
  assert all(s > 0 for s in summary["seconds"].values())
  assert summary["face"].split("/")[0] != summary["speech"].split("/")[0]
  for name in ("lipsync.mp4", "input.mp4"):
    path = os.path.join(workdir, name)
    frames = len(list(video.frames_at_rate(path, 25)))
    waveform, rate = video.read_audio(path)
    assert abs(frames / 25 - len(waveform) / rate) < 0.1


class Links(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.found = []

  def handle_starttag(self, tag, attrs):
    self.found += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_report_needs_no_network(workdir):
  with open(os.path.join(workdir, "report.html"), encoding="utf-8") as f:
    page = f.read()
  links = Links()
  links.feed(page)
  files = [v for v in links.found if not v.startswith(("data:", "#"))]
  assert {"input.mp4", "lipsync.mp4"} <= set(files)
  for file in files:
    assert os.path.isfile(os.path.join(workdir, file)), file
  assert page.count("<svg") == 3
  assert "$" not in page.split("<svg")[0]


def test_run_again_it_changes_nothing(workdir):
  before = summary_of(workdir)
  demo.run(workdir, seed=0, size="tiny", workers=2)
  after = summary_of(workdir)
  for summary in (before, after):
    del summary["seconds"]
  assert before == after
