"""Which sources a folder holds and which split they belong to."""

import collections
import hashlib
import os

import pytest

from data_prep import listing


def test_hash_split_is_a_function_of_the_id():
  ids = [f"speaker{i % 7}/{i:05d}" for i in range(20_000)]
  splits = [listing.hash_split(i, 0.05, 0.1) for i in ids]
  assert splits == [listing.hash_split(i, 0.05, 0.1) for i in ids]
  share = {s: n / len(ids) for s, n in collections.Counter(splits).items()}
  # Five standard deviations of a fair draw.
  assert share["test"] == pytest.approx(0.1, abs=0.011)
  assert share["val"] == pytest.approx(0.05, abs=0.008)
  for clip_id, split in zip(ids[:500], splits[:500], strict=True):
    digest = hashlib.sha256(clip_id.encode()).hexdigest()
    u = int(digest[:16], 16) / 16**16
    expected = "test" if u < 0.1 else "val" if u < 0.15 else "train"
    assert split == expected
  # Fixed for all time: a data set that grows keeps its test clips.
  fixed = ["val", "train", "train", "train", "val", "test", "test", "train"]
  assert [listing.hash_split(f"s1/{i}", 0.3, 0.3) for i in range(8)] == fixed


def test_hash_split_at_the_ends():
  ids = [str(i) for i in range(1000)]
  assert {listing.hash_split(i, 0, 0) for i in ids} == {"train"}
  assert {listing.hash_split(i, 1, 0) for i in ids} == {"val"}
  assert {listing.hash_split(i, 0, 1) for i in ids} == {"test"}
  # More val clips come from train; test stays.
  for i in ids:
    few, many = listing.hash_split(i, 0.1, 0.1), listing.hash_split(i, 0.4, 0.1)
    assert few == many or (few, many) == ("train", "val")


def test_read_splits(tmp_path):
  with pytest.raises(listing.PrepareError, match="none of train.txt"):
    listing.read_splits(str(tmp_path))
  with pytest.raises(listing.PrepareError, match="--splits"):
    listing.read_splits(str(tmp_path / "nowhere"))
  # LRS2's lists have a second word on some lines.
  (tmp_path / "train.txt").write_text("a/1\n\na/2.mp4\na/1\n  a/3 NF\n")
  (tmp_path / "test.txt").write_text("b/1 NF\n")
  assert listing.read_splits(str(tmp_path)) == {
    "train": ["a/1", "a/2", "a/1", "a/3"],
    "test": ["b/1"],
  }
  (tmp_path / "val.txt").write_text("c/1\na/2\n")
  with pytest.raises(
    listing.PrepareError, match=r"a/2 is listed in train\.txt and in val\.txt"
  ):
    listing.read_splits(str(tmp_path))


def test_list_sources(tmp_path):
  with pytest.raises(listing.PrepareError, match="nowhere: no such folder"):
    listing.list_sources(str(tmp_path / "nowhere"))
  with pytest.raises(listing.PrepareError, match="has no files"):
    listing.list_sources(str(tmp_path))
  for name in (".hidden.mp4", ".git/a.mp4", "sub/.DS_Store"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  with pytest.raises(listing.PrepareError, match="has no files"):
    listing.list_sources(str(tmp_path))
  for name in ("b.mp4", "sub/deep/a.b.mkv", "sub/b.MP4", "notes"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  assert listing.list_sources(str(tmp_path)) == {
    "b": "b.mp4",
    "notes": "notes",
    "sub/b": "sub/b.MP4",
    "sub/deep/a.b": "sub/deep/a.b.mkv",
  }
  with pytest.raises(listing.PrepareError, match="no such folder"):
    listing.list_sources(str(tmp_path / "b.mp4"))


def test_list_sources_gives_every_file_an_id_of_its_own(tmp_path):
  files = ("a.mp4", "a.avi", "a.mp4.mkv", "b", "b.mp4", "c.mp4", "d.mp4.mkv")
  for name in files:
    (tmp_path / name).touch()
  ids = listing.list_sources(str(tmp_path))
  assert sorted(ids.values()) == sorted(files)
  assert len(ids) == len(files)
  assert ids["a.mp4"] == "a.mp4" and ids["a.avi"] == "a.avi"
  assert ids["c"] == "c.mp4" and ids["d.mp4"] == "d.mp4.mkv"


def test_list_sources_wants_names_in_utf8(tmp_path):
  (tmp_path / "Zoë 你好.mp4").touch()
  assert listing.list_sources(str(tmp_path)) == {"Zoë 你好": "Zoë 你好.mp4"}
  try:
    (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
  except OSError:
    pytest.skip("this file system takes UTF-8 only")
  with pytest.raises(listing.PrepareError, match=r"dcff\.mp4' is not UTF-8"):
    listing.list_sources(str(tmp_path))


def touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def test_a_folder_of_crops_is_one_source(tmp_path):
  touch(
    tmp_path,
    "s1/one.5/0.jpg",
    "s1/one.5/17.jpg",
    "s1/one.5/audio.wav",
    "s1/two.mp4",
    # Pictures and sound, but no crops of frames.
    "photos/audio.wav",
    "photos/me.jpg",
  )
  assert listing.list_sources(str(tmp_path)) == {
    "photos/audio": "photos/audio.wav",
    "photos/me": "photos/me.jpg",
    "s1/one.5": "s1/one.5",
    "s1/two": "s1/two.mp4",
  }


def test_transcripts_are_no_sources(tmp_path):
  """LRS2 has a .txt beside every video, which must keep its id."""
  touch(tmp_path, "633/00001.mp4", "633/00001.txt", "align/a.align", "a.mpg")
  assert listing.list_sources(str(tmp_path)) == {
    "633/00001": "633/00001.mp4",
    "a": "a.mpg",
  }


def test_assign():
  ids = {"a/1": "a/1.mp4", "a/2": "a/2.mp4", "b/1": "b/1.mp4"}
  listed = {"train": ["a/1", "c/9"], "test": ["b/1"]}
  assert listing.assign(ids, listed) == (
    {"a/1": "train", "b/1": "test"},
    ["a/2"],
    ["c/9"],
  )


def test_lists_of_another_folder_are_told_apart():
  """LRS2's lists are relative to the folder `main`."""
  ids = {"main/633/00001": "main/633/00001.mp4"}
  with pytest.raises(
    listing.PrepareError, match=r"633/00001 is there as main/.*folder main/ "
  ):
    listing.assign(ids, {"train": ["633/00001"]})
  with pytest.raises(
    listing.PrepareError, match="none of the 1 sources: .*main/633/00001.*x/1"
  ):
    listing.assign(ids, {"train": ["x/1"]})


def test_stamp(tmp_path):
  file = tmp_path / "a.mp4"
  file.write_bytes(b"abc")
  os.utime(file, ns=(0, 5_000_000_000))
  assert listing.stamp(str(file)) == [3, 5_000_000_000]
  assert listing.stamp(str(tmp_path / "b")) == [-1, -1]
  folder = listing.stamp(str(tmp_path))
  file.write_bytes(b"abcd")
  assert listing.stamp(str(tmp_path)) != folder
  assert listing.stamp(str(file), str(tmp_path / "b"))[2:] == [-1, -1]
