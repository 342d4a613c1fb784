"""All recipes on GRID: what is called, what is not called again, the table."""

import importlib
import json
import os

import pytest

from launch import grid_recipes, results_table

VARIANTS = ("real", "generated", "reconstructed", "copied", "unsynced")


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """Records what would be called, and does what those commands leave behind."""
  made = []

  def call(module, *arguments):
    made.append((module, *arguments))
    given = dict(a.removeprefix("--").split("=", 1) for a in arguments
                 if "=" in a)  # fmt: skip
    if module == "launch.prepare_data":
      os.makedirs(given["output"])
      with open(os.path.join(given["output"], "report.json"), "w") as f:
        f.write("{}")
    elif module == "launch.train":
      os.makedirs(given["workdir"])
      with open(os.path.join(given["workdir"], "metrics.jsonl"), "w") as f:
        line = {"step": 1, "train/loss": 0.5, "eval/two_way_accuracy": 0.9}
        if "config.expert_checkpoint" in given:
          line = {"step": 1, "train/loss_l1": 0.5, "eval/lower_l1": 0.1}
          line["eval/loss_sync"] = 2.0
        f.write(json.dumps(line) + "\n")
    else:
      os.makedirs(given["outdir"])
      stage = "expert"
      if "generator" in given["checkpoint"] or "gan" in given["checkpoint"]:
        stage = "generator"
      figure = {"mean": 0.25, "low": 0.2, "high": 0.3, "clips": 3}
      report = {
        "stage": stage,
        "protocol": {"clips": int(given["config.clips"])},
        "summary": {
          name: {v: figure for v in VARIANTS}
          for name in (
            "lower_l1",
            "lower_ssim",
            "mouth_correlation",
            "expert_similarity",
          )
        },
        "curves": {
          "expert_similarity": dict.fromkeys(
            ("real", "generated"), [0.1, 0.8, 0.2]
          )
        },
        **dict.fromkeys(results_table._EXPERTS, 0.75),
      }
      with open(os.path.join(given["outdir"], "metrics.json"), "w") as f:
        json.dump(report, f)

  monkeypatch.setattr(grid_recipes, "_call", call)
  monkeypatch.setattr(
    grid_recipes.checkpoints,
    "describe",
    lambda path: (
      ("generator", 9, {"train": {"num_steps": 9}, "ema_decay": 0.9})
      if os.path.exists(path)
      else ("", 0, {})
    ),
  )
  return made


def test_every_run_has_its_config_and_expert():
  for name, run in grid_recipes.RUNS.items():
    config = importlib.import_module(f"configs.{run.config}").get_config(
      "small"
    )
    assert (config.stage == "generator") == (run.expert is not None)
    assert run.part == ("judge" if name == "judge" else "rest")
    if run.expert:
      expert = grid_recipes.RUNS[run.expert]
      of_expert = importlib.import_module(f"configs.{expert.config}")
      # An improved generator begins with what a contrastive expert hears.
      assert ("improved" in run.config) == (
        of_expert.get_config("small").loss.kind == "contrastive"
      )


def test_all_in_order_and_nothing_twice(calls, tmp_path):
  pytest.importorskip("matplotlib")
  folder = str(tmp_path / "results")
  grid_recipes.run(folder, "GRID", "GRID/splits", others="OTHERS")
  modules = [call[0] for call in calls]
  assert modules[:2] == ["launch.prepare_data"] * 2
  assert modules.count("launch.train") == len(grid_recipes.RUNS)
  # Experts once; generators by two experts, on two sets.
  assert modules.count("launch.evaluate") == 3 + 4 * 2 * 2
  experts = [c for c in calls if c[0] == "launch.train"][:3]
  assert [c for c in experts if "--config.data.part=judge" in c] == [experts[0]]
  count = len(calls)
  grid_recipes.run(folder, "GRID", "GRID/splits", others="OTHERS")
  assert len(calls) == count
  text = (tmp_path / "results" / "RESULTS.md").read_text()
  assert "| cosine BCE (the original's loss) | 0.750 | 0.750 |" in text
  assert "similarity (judge) | 0.250 (0.200 to 0.300) |" in text
  assert "People that no network has seen" in text
  assert "python -m launch.train --config=configs/gan_grid_improved.py" in text
  for picture in ("experts", "generators", "off_sync"):
    assert (tmp_path / "results" / f"{picture}.png").exists()
    assert f"({picture}.png)" in text
  assert results_table._off_sync(folder, {"judge": "", "gan": ""})["gan"] == [
    {"step": step, "by the judge": value}
    for step, value in ((-1, 0.1), (0, 0.8), (1, 0.2))
  ]


def test_what_was_done_otherwise_is_not_taken_for_what_is_asked(
  calls, tmp_path
):
  pytest.importorskip("matplotlib")
  folder = str(tmp_path / "results")

  def run(**kwargs):
    where = (folder, "GRID", "GRID/splits")
    grid_recipes.run(*where, only=["generator"], **kwargs)

  run(size="small")
  count = len(calls)
  with pytest.raises(
    SystemExit, match=r"expected a run of .*expert_grid_contr"
  ):
    run(size="full")
  with pytest.raises(SystemExit, match="of at most 7 clips, found those of 50"):
    run(size="small", clips=7)
  assert len(calls) == count


def test_no_speed_where_nothing_was_left_to_train(calls, tmp_path, monkeypatch):
  """Another's training was put there: how long it took is not known."""
  pytest.importorskip("matplotlib")
  judge = tmp_path / "results" / "judge"
  judge.mkdir(parents=True)
  (judge / "metrics.jsonl").write_text('{"step": 1}\n')
  recorded = grid_recipes._call

  def call(module, *arguments):
    if module != "launch.train":
      recorded(module, *arguments)

  monkeypatch.setattr(grid_recipes, "_call", call)
  grid_recipes.run(str(judge.parent), "GRID", "GRID/splits", only=["judge"])
  training = json.loads((judge / "training.json").read_text())
  assert training["seconds_a_step"] is None
  text = (judge.parent / "RESULTS.md").read_text()
  assert (
    "| the independent judge | 0.750 | 0.750 | 0.750 | 0.750 | 9 | - |" in text
  )


def test_an_unknown_run_is_named(tmp_path):
  with pytest.raises(SystemExit, match="--only=wgan: expected some of judge, "):
    grid_recipes.run(str(tmp_path), "GRID", "GRID/splits", only=["wgan"])


def test_an_ablation_changes_what_it_names():
  """Its flags are of the config, and differ from the recipe's values."""
  for name, run in grid_recipes.ABLATIONS.items():
    module = importlib.import_module(f"configs.{run.config}")
    config = module.get_config("small")
    assert run.expert in grid_recipes.RUNS
    assert bool(run.flags) == (name not in ("all", "cosine_bce", "original"))
    for flag in run.flags:
      field, value = flag.removeprefix("--config.").split("=")
      for part in field.split("."):
        config = config[part]
      assert str(config) != value, flag
      config = module.get_config("small")


def test_ablations(calls, tmp_path):
  folder = str(tmp_path / "results")
  path = grid_recipes.ablate(
    folder, "GRID", "GRID/splits", only=["all", "cosine_bce"]
  )
  workdirs = [
    a.rsplit("/", 1)[1]
    for call in calls
    if call[0] == "launch.train"
    for a in call
    if a.startswith("--workdir=")
  ]
  assert workdirs == [
    "judge", "expert", "expert_contrastive", "all", "cosine_bce",
  ]  # fmt: skip
  assert [c[0] for c in calls].count("launch.evaluate") == 2
  assert "--split=val" in calls[-1] and "--config.clips=16" in calls[-1]
  assert "--config.train.num_steps=600" in calls[-2]
  with open(path) as f:
    assert "| the improved recipe | 0.250 (0.200 to 0.300) |" in f.read()
  count = len(calls)
  grid_recipes.ablate(folder, "GRID", "GRID/splits", only=["all"])
  assert len(calls) == count


def test_a_generator_brings_its_experts():
  assert grid_recipes._with_experts(["gan"]) == ["judge", "expert", "gan"]
