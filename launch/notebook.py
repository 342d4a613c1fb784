"""What notebooks show and ask for, in Jupyter and Colab alike.

Everything else is the API that scripts use.  The notebooks are in launch/colab.
"""

import base64
import contextlib
import glob
import html
import importlib.util
import mimetypes
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from IPython import display

from launch import curves as curves_lib
from launch import html_page
from w2l_jax import metrics

# Seconds between two looks at a run's figures.
_LOOK_SECONDS = 3.0


def in_colab() -> bool:
  """Whether the notebook runs in Colab."""
  try:
    return importlib.util.find_spec("google.colab") is not None
  except ModuleNotFoundError:  # There is no "google" either.
    return False


# --- Files ------------------------------------------------------------------


def kept_folder(name: str = "w2l_jax") -> str:
  """Returns a folder that outlives the notebook's machine, where there is one.

  In Colab that is MyDrive/NAME of the mounted Google Drive (a window asks);
  elsewhere runs/NAME.

  Args:
    name: of the folder.
  """
  if in_colab():
    from google.colab import drive

    drive.mount("/content/drive")
    folder = f"/content/drive/MyDrive/{name}"
  else:
    folder = os.path.join("runs", name)
  os.makedirs(folder, exist_ok=True)
  return folder


def chosen(given: str, what: str, folder: str = "runs/uploads") -> str:
  """Returns the path of a file that was given, or is asked for.

  Args:
    given: its path, or "upload": then a window asks for it, in Colab; or "".
    what: it should be, for the window.
    folder: that keeps what is uploaded.

  Returns:
    Its path; "" if that was given.

  Raises:
    RuntimeError: outside Colab, where files need no upload, or if none was
      chosen.
  """
  if given != "upload":
    return given
  if not in_colab():
    raise RuntimeError(
      "uploads are Colab's; here, give the path of the file itself"
    )
  from google.colab import files

  os.makedirs(folder, exist_ok=True)
  print(what)
  for name, data in files.upload().items():
    path = os.path.join(folder, os.path.basename(name))
    with open(path, "wb") as f:
      f.write(data)
    return path
  raise RuntimeError("no file was chosen; run the cell again")


def download(path: str) -> None:
  """Sends a file to one's own computer; outside Colab says where it is."""
  if in_colab():
    from google.colab import files

    files.download(path)
  else:
    print(f"it is at {os.path.abspath(path)}")


def local_copy(prepared: str, folder: str = "runs/local_data") -> str:
  """Copies a prepared set to the machine's own disk, for reading it fast.

  Training reads records in any order, which a mounted folder is slow at.  What
  preparation keeps for its next run stays behind.

  Args:
    prepared: the set, as of prepare.prepare.
    folder: where to; what is there is replaced.

  Returns:
    The copy.
  """
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("clips"))
  return folder


# --- Showing ----------------------------------------------------------------


def play(*paths: str, width: int = 320) -> None:
  """Shows videos, pictures or sounds beside each other, embedded."""
  kinds = {"video": _VIDEO, "audio": _AUDIO, "image": _IMAGE}
  shown = []
  for path in paths:
    mime = mimetypes.guess_type(path)[0] or "video/mp4"
    with open(path, "rb") as f:
      data = base64.b64encode(f.read()).decode()
    element = kinds.get(mime.split("/")[0], _VIDEO)
    shown.append(
      f'<figure style="margin:0 1em 1em 0">{element.format(width=width)}'
      f"<figcaption>{html.escape(os.path.basename(path))}</figcaption></figure>".replace(
        "DATA", f"data:{mime};base64,{data}"
      )
    )
  display.display(
    display.HTML(
      f'<div style="display:flex;flex-wrap:wrap">{"".join(shown)}</div>'
    )
  )


# What some systems' tables and Python 3.11's lack.
for _kind, _ending in (
  ("audio/flac", ".flac"),
  ("audio/mp4", ".m4a"),
  ("audio/ogg", ".ogg"),
  ("video/x-matroska", ".mkv"),
  ("image/webp", ".webp"),
):
  mimetypes.add_type(_kind, _ending)
_VIDEO = '<video src="DATA" width="{width}" controls></video>'
_AUDIO = '<audio src="DATA" controls></audio>'
_IMAGE = '<img src="DATA" width="{width}">'


def show(picture: np.ndarray, width: int | None = None) -> None:
  """Shows a picture.

  Args:
    picture: BGR uint8 [H, W, 3].
    width: in pixels; None: its own.
  """
  png = cv2.imencode(".png", picture)[1].tobytes()
  display.display(display.Image(png, width=width))


def show_page(path: str, height: int = 600) -> None:
  """Shows a report, an HTML page that needs no other files."""
  with open(path, encoding="utf-8") as f:
    page = html.escape(f.read(), quote=True)
  display.display(
    display.HTML(
      f'<div><iframe srcdoc="{page}" style="width:100%;height:{height}px;'
      'border:1px solid #ccc;background:#fff"></iframe></div>'
    )
  )


class Table:
  """A table that notebooks draw, and print where they cannot."""

  def __init__(self, head: Sequence, lines: Sequence[Sequence]):
    """Takes names of columns, and lines; floats are shown in four digits."""
    self._head = [str(c) for c in head]
    self._lines = [
      [f"{c:.4g}" if isinstance(c, float) else str(c) for c in line]
      for line in lines
    ]

  def __str__(self):
    lines = [self._head, *self._lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
      "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
      for line in lines
    )

  __repr__ = __str__

  def _repr_html_(self):
    head = "".join(f"<th>{html.escape(c)}</th>" for c in self._head)
    numbers = tuple(range(1, len(self._head)))
    return (
      f"<table><tr>{head}</tr>{html_page.rows(self._lines, numbers)}</table>"
    )


def curves(
  runs: dict[str, list[dict]], figures: Sequence[str]
) -> display.Image:
  """Draws figures of runs, a plot for each figure and a line for each run.

  Args:
    runs: {label: lines of its metrics.jsonl}.
    figures: names in them, as "train/loss".
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "curves.png")
    curves_lib.draw(runs, list(figures), path)
    with open(path, "rb") as f:
      return display.Image(f.read())


# --- A run while it trains --------------------------------------------------


@contextlib.contextmanager
def live(workdir: str, figures: Sequence[str]) -> Iterator[None]:
  """Draws a run's curves, and its newest samples, while the block lasts.

  Args:
    workdir: of the run that the block trains.
    figures: names in its metrics.jsonl, as "train/loss".
  """
  drawn, samples = (
    display.display(display.HTML(""), display_id=True) for _ in range(2)
  )
  ended = threading.Event()
  seen: tuple = ()

  def look():
    nonlocal seen
    lines = metrics.read_metrics(workdir)
    grids = sorted(glob.glob(os.path.join(workdir, "samples", "grid_*.png")))
    now = (len(lines), len(grids))
    if now == seen:
      return
    seen = now
    known = [name for name in figures if any(name in line for line in lines)]
    if known:
      drawn.update(curves({os.path.basename(workdir): lines}, known))
    if grids:
      samples.update(display.Image(grids[-1]))

  def watch():
    while not ended.wait(_LOOK_SECONDS):
      look()

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    look()
