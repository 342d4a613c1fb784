"""What launch.evaluate prints."""

from launch import evaluation_table


def test_text():
  report = {
    "stage": "generator",
    "step": 7,
    "split": "test",
    "clips": 3,
    "device": "cpu",
    "windows": 32,
    "note": "look out",
    "eval/psnr": 20.0,
    "eval/psnr_copied": 10.0,
    "scored": 2,
    "summary": {
      "psnr": {"copied": {"mean": 1.0}, "generated": {"mean": 2.0}},
      "fid": {"generated": {"mean": 3.0}},
    },
    "failures": [{"clip": "a", "reason": "too short"}],
    "not_measured": {"lpips": "no weights"},
  }
  text = evaluation_table.text(report, ["eval/psnr", "eval/psnr_copied"])
  lines = [line.split() for line in text.splitlines()]
  assert lines[0] == ["note:", "look", "out"]
  assert "generator, step 7, split test: 3 clips, on cpu" in text
  assert ["psnr", "20.0000", "-", "10.0000"] in lines
  # Variants in one order, and a place for each.
  assert ["generated", "copied"] in lines
  assert ["psnr", "2.0000", "1.0000"] in lines
  assert ["fid", "3.0000", "-"] in lines
  assert "  a: too short" in text and "not measured: lpips: no weights" in text


def test_videos_without_a_checkpoint():
  report = {
    "stage": None, "step": None, "videos": "folder", "device": "cpu",
    "scored": 0, "summary": {}, "failures": [], "not_measured": {},
  }  # fmt: skip
  text = evaluation_table.text(report, [])
  assert text.startswith("videos, folder, on cpu")
  assert "0 clips or face tracks" in text
