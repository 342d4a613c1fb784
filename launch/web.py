r"""Serves a page on which a face and speech become a lip-synced video.

  python -m launch.web --checkpoint=runs/gan

Open the address that it prints.  It listens on this machine alone unless --host
says otherwise, asks nothing of the network, and removes all files when it
ends, and those of an hour ago before.  Needs the extra "web" (Gradio).
"""

import os
import signal
import sys
import tempfile
import threading

from absl import app, flags, logging

from launch import web_jobs

_CHECKPOINT = flags.DEFINE_string(
  "checkpoint",
  None,
  "Workdir, step folder, file of weights or name of a generator; unset: "
  "grid-small, which comes with the package and knows one man.",
)
_HOST = flags.DEFINE_string(
  "host",
  "127.0.0.1",
  "Address to listen at. With 0.0.0.0 everybody who reaches this machine can "
  "use the page: there are no passwords.",
)
_PORT = flags.DEFINE_integer("port", 7860, "Port; 0 takes a free one.")
_SECONDS = flags.DEFINE_float(
  "max_seconds", web_jobs.Limits.seconds, "Of speech.", lower_bound=1
)
_MEGABYTES = flags.DEFINE_integer(
  "max_megabytes", web_jobs.Limits.megabytes, "Of a file.", lower_bound=1
)
_PATIENCE = flags.DEFINE_float(
  "max_reading_seconds",
  web_jobs.Limits.patience,
  "That reading a file may take; who reads it is stopped then, and tries once "
  "more.",
  lower_bound=1,
)
_KEEP = flags.DEFINE_float(
  "keep_minutes",
  web_jobs.Limits.keep_minutes,
  "Files are removed after so many minutes.",
  lower_bound=0.1,
)
_EXAMPLES = flags.DEFINE_bool("examples", True, "Offer examples to click.")


def _settings(folder: str) -> None:
  """What must be so before Gradio is imported.

  Args:
    folder: for all temporary files, also those of others' processes.
  """
  os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_TEMP_DIR": os.path.join(folder, "files"),
    "HF_HUB_OFFLINE": "1",
    "MPLCONFIGDIR": os.path.join(folder, "matplotlib"),  # Gradio imports it.
    "TMPDIR": folder,
  }
  tempfile.tempdir = folder


def main(argv):
  """Serves until it is stopped."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  # Imported here: processes that read files are copies of this module, and need
  # none of it.
  from launch import sample
  from w2l_jax import checkpoints, lip_syncer

  # A kill cleans up as Ctrl-C does.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  limits = web_jobs.Limits(
    seconds=_SECONDS.value,
    megabytes=_MEGABYTES.value,
    patience=_PATIENCE.value,
    keep_minutes=_KEEP.value,
  )
  try:
    if not _CHECKPOINT.value:
      print(f"no --checkpoint: taking {sample.CHECKPOINT}, which knows one man")
    syncer = lip_syncer.LipSyncer.from_checkpoint(
      _CHECKPOINT.value or sample.CHECKPOINT
    )
    # What a job in progress writes while it is removed does not matter.
    with tempfile.TemporaryDirectory(
      prefix="w2l_jax_web_", ignore_cleanup_errors=True
    ) as folder:
      _settings(folder)
      try:
        from launch import web_page
      except ImportError as e:
        sys.exit(f"error: {e}; the page needs Gradio: pip install '.[web]'")
      files, given = (os.path.join(folder, f) for f in ("files", "examples"))
      os.makedirs(files)
      os.makedirs(given)
      studio = web_jobs.Studio(syncer, files, limits)
      web_jobs.Janitor(files, limits.keep_minutes)
      examples = sample.examples(given) if _EXAMPLES.value else []
      page = web_page.build(studio, examples)
      address = web_page.serve(page, _HOST.value, _PORT.value, limits, files)
      print(f"open {address} (Ctrl-C ends it)", flush=True)
      threading.Event().wait()
  except (checkpoints.CheckpointError, OSError) as e:
    sys.exit(f"error: {e}")
  except KeyboardInterrupt:
    print("ended; its files are removed", flush=True)
    os._exit(0)  # A job in progress is not waited for.


if __name__ == "__main__":
  app.run(main)
