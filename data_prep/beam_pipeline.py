"""Clips made by an Apache Beam runner: Dataflow, Flink, Spark, or this machine.

The functions are those of clip_store.py; only who calls them differs.  Beam is
an extra (pip install 'w2l_jax[beam]'), imported when it is asked for.
"""

from collections.abc import Iterator

from data_prep import clip_store
from data_prep.listing import PrepareError

# A worker gets so many clips at a time and starts one process for them: a crash
# in a decoder must not take the Beam worker along.
_CLIPS_AT_A_TIME = 64


def options(flags: list[str]):
  """Returns Beam's PipelineOptions of flags such as --runner=DirectRunner.

  Raises:
    PrepareError: if Beam is not installed.
  """
  try:
    from apache_beam.options import pipeline_options
  except ImportError as e:
    raise PrepareError(
      "Apache Beam is not installed; pip install 'w2l_jax[beam]'"
    ) from e
  return pipeline_options.PipelineOptions(flags)


def _make_some(jobs, clip_timeout: float) -> list[str]:
  made = clip_store.make(list(jobs), workers=1, clip_timeout=clip_timeout)
  return [status["id"] for status in made]


def make(
  jobs: list[clip_store.Job], beam_options: list[str], clip_timeout: float
) -> Iterator[dict]:
  """Makes clips with a Beam pipeline; waits for its end.

  Args:
    jobs: the clips; their folders must mean the same to every worker.
    beam_options: Beam's own flags.
    clip_timeout: as in clip_store.make.

  Yields:
    The status of each.
  """
  if not jobs:
    return
  pipeline_options = options(beam_options)
  import apache_beam as beam

  with beam.Pipeline(options=pipeline_options) as pipeline:
    _ = (
      pipeline
      | "Jobs" >> beam.Create(jobs)
      | "Spread" >> beam.Reshuffle()
      | "Some" >> beam.BatchElements(max_batch_size=_CLIPS_AT_A_TIME)
      | "Make" >> beam.FlatMap(_make_some, clip_timeout)
    )
  for job in jobs:
    status = clip_store.read_status(job)
    if status is not None:  # None: its source changed meanwhile.
      yield status
