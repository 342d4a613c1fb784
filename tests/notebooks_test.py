"""The notebooks, run from clean kernels; run with "make test-notebooks"."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(1800)]
pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

from launch.colab import sync  # noqa: E402

FOLDER = REPOSITORY / "launch" / "colab"
# What the parameters' cell is followed by, so that it takes minutes.
SMALL = {
  "lipsync_a_video": {},
  "train_on_your_videos": {
    "SIZE": "tiny",
    "EXPERT_STEPS": 2,
    "GENERATOR_STEPS": 2,
    "PAINTED": (2, 1, 1),
  },
  "compare_with_pytorch": {"WIDTH": 1 / 8, "BATCH": 4, "STEPS": 2},
}


@pytest.fixture
def checkout(tmp_path):
  """A copy of the project, in which notebooks may write what they like."""
  copy = tmp_path / "checkout"
  shutil.copytree(
    REPOSITORY,
    copy,
    ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data", ".*_cache"),
  )
  # An installed package would be found first, were the copy not a checkout.
  assert (copy / "w2l_jax" / "version.py").exists()
  return copy


def execute(checkout, name, **parameters):
  """Runs a notebook in a kernel of its own, as Jupyter does it.

  Returns:
    (the notebook with its outputs, all that it printed).
  """
  path = checkout / "launch" / "colab" / f"{name}.ipynb"
  notebook = nbformat.read(path, as_version=4)
  (at,) = (
    i
    for i, cell in enumerate(notebook.cells)
    if "parameters" in cell.metadata.get("tags", [])
  )
  text = "\n".join(f"{k} = {v!r}" for k, v in parameters.items())
  for given in parameters:
    assert f"\n{given} = " in f"\n{notebook.cells[at].source}", given
  notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(text))
  nbclient.NotebookClient(
    notebook,
    timeout=1200,
    kernel_name="python3",
    resources={"metadata": {"path": str(path.parent)}},
  ).execute()
  printed = "".join(
    output.text
    for cell in notebook.cells
    if cell.cell_type == "code"
    for output in cell.outputs
    if output.output_type == "stream"
  )
  return notebook, printed


def shown(notebook, kind):
  """All that was displayed of a MIME type."""
  return [
    output.data[kind]
    for cell in notebook.cells
    if cell.cell_type == "code"
    for output in cell.outputs
    if output.output_type in ("display_data", "execute_result")
    if kind in output.data
  ]


@pytest.mark.parametrize("name", sync.NAMES)
def test_text_and_notebook_are_the_same(name):
  text = (FOLDER / f"{name}.py").read_text()
  assert sync.completed(name, text) == text, "run python -m launch.colab.sync"
  notebook = (FOLDER / f"{name}.ipynb").read_text()
  assert sync.as_notebook(text) == notebook, "run python -m launch.colab.sync"
  cells = json.loads(notebook)["cells"]
  for cell in cells:
    if cell["cell_type"] == "code":
      assert cell["outputs"] == [] and cell["execution_count"] is None
  # Newcomers read before they run: the badge, then what it needs.
  assert sync.badge(name) in "".join(cells[0]["source"])
  assert f"/{name}.ipynb" in sync.badge(name)
  code = [c for c in cells if c["cell_type"] == "code"]
  assert code[0]["metadata"]["tags"] == ["install"]


def test_the_first_cell_clones_once(tmp_path):
  origin, content = tmp_path / "origin", tmp_path / "content"
  (origin / "w2l_jax").mkdir(parents=True)
  (origin / "w2l_jax" / "version.py").write_text("")
  content.mkdir()
  git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
  for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
    subprocess.run([*git, *command], cwd=origin, check=True)
  cell = (FOLDER / "install_cell.py").read_text()
  cell = cell.replace(sync.repository(), origin.as_uri())
  cell += "\nprint(os.getcwd(), sys.path[0])"
  # Then a restarted kernel, in Colab's folder and in the checkout's.
  checkout = content / "w2l_jax"
  for folder in (content, content, checkout, checkout / "w2l_jax"):
    done = subprocess.run(
      [sys.executable, "-c", cell],
      cwd=folder,
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout.split() == [str(checkout)] * 2


def test_what_notebooks_call(capsys):
  from launch import notebook

  table = notebook.Table(["name", "value"], [["<a>", 1.23456], ["b", 2]])
  assert str(table) == "name  value\n<a>   1.235\nb     2"
  assert "&lt;a&gt;" in table._repr_html_()
  assert not notebook.in_colab()
  assert notebook.chosen("face.mp4", "the face") == "face.mp4"
  with pytest.raises(RuntimeError, match="give the path of the file itself"):
    notebook.chosen("upload", "the face")
  notebook.download("face.mp4")
  assert str(REPOSITORY / "face.mp4") in capsys.readouterr().out


def test_lipsync_a_video(checkout):
  notebook, printed = execute(
    checkout, "lipsync_a_video", **SMALL["lipsync_a_video"]
  )
  assert "one face; its lips move" in printed
  assert re.search(r"a face was drawn in \d+ of them, 0 are unchanged", printed)
  videos = [h for h in shown(notebook, "text/html") if "<video" in h]
  assert len(videos) == 3
  assert all("data:video/mp4;base64," in h for h in videos)
  for file in ("result.mp4", "photo.mp4", "generator.safetensors"):
    assert (checkout / "runs" / file).stat().st_size > 1000


def test_train_on_your_videos_and_go_on(checkout):
  parameters = SMALL["train_on_your_videos"]
  notebook, printed = execute(checkout, "train_on_your_videos", **parameters)
  kept = checkout / "runs" / "w2l_jax"
  assert (kept / "lipsync.mp4").stat().st_size > 1000
  assert "CHECKPOINT = 'runs/w2l_jax/generator'" in printed
  pages = shown(notebook, "text/html")
  assert any("Prepared set" in page for page in pages)
  assert any("lower_psnr" in page for page in pages)
  # The curves of both stages, and the sheet of samples.
  assert len(shown(notebook, "image/png")) == 3
  # Another kernel, with what was kept: as after a disconnect.
  shutil.rmtree(checkout / "runs" / "local_data")
  _, printed = execute(
    checkout,
    "train_on_your_videos",
    **{**parameters, "GENERATOR_STEPS": 4},
  )
  assert "runs/w2l_jax/expert: finished: 2 steps are done" in printed
  assert "runs/w2l_jax/generator: going on from step 2" in printed
  steps = (kept / "generator" / "metrics.jsonl").read_text().splitlines()
  assert json.loads(steps[-1])["step"] == 4


def test_compare_with_pytorch(checkout):
  pytest.importorskip("torch")
  notebook, printed = execute(
    checkout, "compare_with_pytorch", **SMALL["compare_with_pytorch"]
  )
  largest = float(re.search(r"largest difference (\S+) of", printed)[1])
  assert largest < 1e-5
  tables = [h for h in shown(notebook, "text/html") if "<table>" in h]
  assert len(tables) == 3
  assert "PyTorch" in tables[-1]
  assert len(shown(notebook, "image/png")) == 3


def test_a_broken_cell_fails(checkout):
  path = checkout / "launch" / "colab" / "lipsync_a_video.ipynb"
  notebook = nbformat.read(path, as_version=4)
  notebook.cells[1].source += "\nassert os.path.exists('w2l_jax'), os.getcwd()"
  notebook.cells[3].source += "\nraise RuntimeError('broken')"
  nbformat.write(notebook, path)
  with pytest.raises(nbclient.exceptions.CellExecutionError, match="broken"):
    execute(checkout, "lipsync_a_video")
