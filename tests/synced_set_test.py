"""A whole set filtered by an expert, and the page that tells of it."""

import json
import re
import types

import numpy as np
import prepare_test
import pytest
from conftest import FACE_SIZE, SETTINGS

from data_prep import prepare, records, set_report, sync_filter, synced_set
from w2l_jax import dataset


def fixed(monkeypatch, syncs):
  """Lets an expert be of the opinion `syncs` {id: Sync} of this set."""

  judge = types.SimpleNamespace(picture_size=FACE_SIZE)
  monkeypatch.setattr(sync_filter, "load_judge", lambda checkpoint: judge)
  monkeypatch.setattr(sync_filter, "features_of", lambda judge, example: 1)
  monkeypatch.setattr(synced_set.checkpoints, "step_folder", lambda path: path)
  order = iter(syncs)
  monkeypatch.setattr(sync_filter, "measure", lambda a, b: next(order))
  monkeypatch.setattr(sync_filter, "mismatched", lambda sample: [])


def test_kept_shifted_and_dropped(data_dir, tmp_path, monkeypatch):
  sync = sync_filter.Sync
  # In the order of reading: four of train, then val, then test.
  directory = dataset.builder_dir(data_dir, FACE_SIZE)
  before = {
    name: [dataset.text(split[i]["id"]) for i in range(len(split))]
    for name, split in dataset.open_splits(directory).items()
  }
  assert list(before) == ["train", "val", "test"]
  fixed(
    monkeypatch,
    [
      sync(0, 0.9),
      sync(3, 0.9),
      sync(0, 0.1),
      None,
      sync(-2, 0.8),
      sync(9, 0.7),
    ],
  )
  output = tmp_path / "synced"
  report = synced_set.filter_set(
    data_dir,
    str(output),
    "an expert",
    sync_filter.Thresholds(max_offset=8, min_confidence=0.5),
  )
  what = [row["what"] for row in report["records"]]
  assert what == [
    "kept", "shifted", "dropped", "dropped", "shifted", "dropped"
  ]  # fmt: skip
  assert [row["id"] for row in report["records"]] == sum(before.values(), [])
  assert json.loads((output / "sync.json").read_text()) == report
  found = prepare_test.records(output)
  old = prepare_test.records(data_dir)
  assert {s: set(r) for s, r in found.items()} == {
    "train": set(before["train"][:2]),
    "val": set(before["val"]),
  }
  kept, shifted = before["train"][:2]
  same, moved = found["train"][kept], found["train"][shifted]
  assert list(same["frames"]) == list(old["train"][kept]["frames"])
  np.testing.assert_array_equal(same["mel"], old["train"][kept]["mel"])
  assert list(moved["frames"]) == list(old["train"][shifted]["frames"][3:])
  early = found["val"][before["val"][0]]
  assert list(early["frames"]) == list(
    old["val"][before["val"][0]]["frames"][:-2]
  )
  heard = dataset.decode_audio(old["val"][before["val"][0]])[2 * 640 :]
  np.testing.assert_allclose(dataset.decode_audio(early), heard, atol=1e-4)
  text = synced_set.table(report)
  assert re.search(r"\+3 +0 +1 +0", text) and re.search(r"none +0 +0 +1", text)
  page = (output / "report.html").read_text()
  assert '<td>+3</td><td class="n">0</td><td class="n">1</td>' in page
  assert "offset, frames" in page and "dropped: confidence too low" in page


def test_errors_say_what_to_do(data_dir, tmp_path, monkeypatch):
  fixed(monkeypatch, [None] * 6)
  thresholds = sync_filter.Thresholds(min_confidence=0.5)
  with pytest.raises(ValueError, match="is the set itself"):
    synced_set.filter_set(data_dir, data_dir, "x", thresholds)
  with pytest.raises(
    prepare.PrepareError, match="of 6 records none is in sync"
  ):
    synced_set.filter_set(data_dir, str(tmp_path / "new"), "x", thresholds)
  with pytest.raises(dataset.DatasetError, match="no prepared data set"):
    synced_set.filter_set(
      str(tmp_path / "nowhere"), str(tmp_path / "new"), "x", thresholds
    )


def test_a_trained_expert_measures_records(data_dir, expert_run):
  judge = sync_filter.load_judge(expert_run[0])
  assert judge.picture_size == FACE_SIZE
  split = dataset.Split(dataset.builder_dir(data_dir, FACE_SIZE), "train")
  features = sync_filter.features_of(judge, split[0])
  assert len(features) == len(split[0]["frames"]) - 4
  assert isinstance(sync_filter.measure(features, features), sync_filter.Sync)
  short = {**split[0], "frames": split[0]["frames"][:3]}
  assert sync_filter.features_of(judge, short) is None
  assert sync_filter.measure(None, None) is None


def test_records_come_back_from_a_set(data_dir):
  directory = dataset.builder_dir(data_dir, FACE_SIZE)
  example = dataset.Split(directory, "test")[0]
  record = records.from_example(example, dataset.preparation(directory))
  assert record.settings == SETTINGS.as_json()
  assert record.id == "someone/clip5" and record.speaker == "someone"
  assert record.confidence > 0.9 and record.sharpness > 0
  older = {k: v for k, v in example.items() if k != "sharpness"}
  assert np.isnan(records.from_example(older, {}).sharpness)


def test_the_report_of_a_set(data_dir, tmp_path):
  output = prepare_test.shutil.copytree(data_dir, tmp_path / "a <set> & more")
  report = json.loads((output / "report.json").read_text())
  report["set_aside"] = {
    "a<b>.mp4": "has 3 frames at 25 a second, fewer than 16",
    "b.mp4": "has 12 frames at 25 a second, fewer than 16",
    "c.mp4": "the file is empty",
  }
  (output / "report.json").write_text(json.dumps(report))
  summary = set_report.write(str(output), FACE_SIZE)
  assert json.loads((output / "set.json").read_text()) == summary
  assert summary["records"] == 6 and summary["clips"] == 6
  assert summary["speakers"] == 1
  assert summary["hours"] == pytest.approx(8.4 / 3600, abs=1e-3)
  assert summary["set_aside"] == {
    "has # frames at # a second, fewer than #": 2,
    "the file is empty": 1,
  }
  page = (output / "report.html").read_text()
  assert "a &lt;set&gt; &amp; more" in page and "a&lt;b&gt;.mp4" in page
  assert page.count("data:image/jpeg;base64,") == 6
  assert page.count("<svg") == 4
  assert "http" not in page.replace("http://www.w3.org", "")
