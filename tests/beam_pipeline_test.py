"""The same clips by a Beam runner; needs pip install 'w2l_jax[beam]'."""

import prepare_test
import pytest
from conftest import SETTINGS

from data_prep import beam_pipeline, clip_store, prepare


def test_without_beam_the_message_says_what_to_install(monkeypatch):
  import sys

  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(
    prepare.PrepareError, match=r"pip install 'w2l_jax\[beam\]'"
  ):
    beam_pipeline.options([])


@pytest.mark.slow
def test_the_direct_runner_gives_identical_records(
  video_folder, splits_folder, data_dir, tmp_path
):
  pytest.importorskip("apache_beam")
  videos = prepare_test.shutil.copytree(video_folder, tmp_path / "videos")
  (videos / "someone" / "bad.mp4").write_bytes(b"bad" * 1000)
  with (splits_folder / "train.txt").open() as f:
    lists = tmp_path / "lists"
    prepare_test.shutil.copytree(splits_folder, lists)
    (lists / "train.txt").write_text(f.read() + "someone/bad\n")
  output = tmp_path / "data"
  report = prepare.prepare(
    str(videos),
    str(output),
    SETTINGS,
    splits_folder=str(lists),
    beam_options=["--runner=DirectRunner"],
  )
  assert report.made == 6 and list(report.set_aside) == ["someone/bad.mp4"]
  ours, theirs = (prepare_test.shards(d) for d in (data_dir, output))
  local, beam = (prepare_test.contents(d) for d in (ours, theirs))
  assert local.keys() == beam.keys()
  for name in local:
    if name.endswith(".npz"):
      assert local[name] == beam[name], name
  for split, records in prepare_test.records(data_dir).items():
    found = prepare_test.records(output)[split]
    assert list(found) == list(records)
    for clip_id, record in records.items():
      _assert_same(found[clip_id], record)
  # And goes on from what is there.
  again = prepare.prepare(
    str(videos),
    str(output),
    SETTINGS,
    splits_folder=str(lists),
    beam_options=["--runner=DirectRunner"],
  )
  assert (again.made, again.reused) == (0, 6)


def _assert_same(a, b):
  assert a.keys() == b.keys()
  for name, value in a.items():
    if isinstance(value, dict):
      _assert_same(value, b[name])
    else:
      prepare_test.np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_no_jobs_start_no_pipeline():
  assert list(beam_pipeline.make([], ["--runner=NoSuchRunner"], 1.0)) == []


def test_a_worker_makes_clips_as_this_machine_does(monkeypatch):
  asked = []

  def make(jobs, workers, clip_timeout):
    asked.append((jobs, workers, clip_timeout))
    return [{"id": "a"}, {"id": "b"}]

  monkeypatch.setattr(clip_store, "make", make)
  assert beam_pipeline._make_some(("x", "y"), 7.0) == ["a", "b"]
  assert asked == [(["x", "y"], 1, 7.0)]
