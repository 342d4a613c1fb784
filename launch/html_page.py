"""What the HTML reports share: style, plots as SVG, tables.  No network."""

import html
import io
import os

import matplotlib

matplotlib.use("Agg")  # No display is needed, and none may be at hand.
import matplotlib.pyplot as plt

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 62rem; padding: 0 1rem; color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; flex: 1 1 20rem; }
figcaption { color: #555; font-size: .9rem; }
video, img, svg { max-width: 100%; height: auto; }
video { width: 100%; background: #000; }
img.samples { image-rendering: auto; width: 100%; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd;
         vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.wide td.n { white-space: nowrap; }
.head { display: flex; flex-wrap: wrap; gap: 1rem; }
.head div { flex: 1 1 9rem; border: 1px solid #ddd; border-radius: .4rem;
            padding: .6rem .8rem; }
.head b { display: block; font-size: 1.6rem; }
.wide { overflow-x: auto; font-size: .85rem; }
button { font: inherit; padding: .3rem .8rem; }
"""


def svg(figure) -> str:
  """Returns a matplotlib figure as SVG to be put into a page; closes it."""
  out = io.StringIO()
  figure.savefig(out, format="svg", bbox_inches="tight")
  plt.close(figure)
  text = out.getvalue()
  return text[text.index("<svg") :]


def rows(lines, numbers: tuple[int, ...] = (1,)) -> str:
  """Returns table rows; the columns `numbers` are set as numbers."""
  return "".join(
    "<tr>"
    + "".join(
      f'<td class="n">{html.escape(str(c))}</td>'
      if i in numbers
      else f"<td>{html.escape(str(c))}</td>"
      for i, c in enumerate(line)
    )
    + "</tr>"
    for line in lines
  )


def write(path: str, page: str) -> None:
  """Writes a page; it has this name only when complete."""
  with open(f"{path}.partial", "w", encoding="utf-8") as f:
    f.write(page)
  os.replace(f"{path}.partial", path)
