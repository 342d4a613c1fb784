"""Which windows are chosen, against trying every one of them."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from w2l_jax import dataset, window_sampler

STAGES = ("expert", "generator", "two_way")
# Far below what chance gives; the seeds are fixed.
LEAST_P = 1e-4
# Pictures and mel columns of each record: long, middling, with a mel that ends
# early, with a mel that goes on, a frame too short, with too few columns, none.
SHAPES = (
  (75, 241), (30, 97), (40, 60), (12, 200), (6, 40), (5, 17), (5, 60),
  (60, 15), (0, 0), (20, 65),
)  # fmt: skip


def make_index(shapes=SHAPES, means=None) -> dataset.Index:
  num_frames, num_mel = np.array(shapes, np.int64).reshape(-1, 2).T
  if means is None:
    means = np.zeros(num_mel.sum(), np.float32)
  return dataset.Index(
    ids=np.array([f"clip{i}" for i in range(len(shapes))]),
    num_frames=num_frames,
    num_mel=num_mel,
    column_means=means,
  )


def first_column(frame: int) -> int:
  return (16 * frame) // 5


def valid_pairs(shape, spec, stage, speech=None) -> set:
  """All (audio, other) of a record, by trying each."""
  n_frames, n_mel = shape

  def has_frames(f):
    return f >= 0 and f + spec.frames <= n_frames

  def has_mel(f):
    start = first_column(f)
    return start >= 0 and start + spec.mel_columns <= n_mel

  def is_first(f):
    if not (has_frames(f) and has_mel(f)):
      return False
    if stage == "generator":
      return all(
        has_mel(f + k + spec.frame_mel_offset) for k in range(spec.frames)
      )
    return speech is None or speech(f)

  def is_second(f):
    # The expert's and two_way's may be swapped, the generator's may not.
    return has_frames(f) and (stage == "generator" or has_mel(f))

  distance = (
    spec.min_reference_distance
    if stage == "generator"
    else spec.min_negative_distance
  )
  return {
    (a, b)
    for a in range(-3, n_frames + 3)
    if is_first(a)
    for b in range(-3, n_frames + 3)
    if is_second(b) and abs(a - b) >= distance
  }


SPECS = {
  "offset -1": window_sampler.WindowSpec(),
  "offset 0": window_sampler.WindowSpec(frame_mel_offset=0),
  "offset -2": window_sampler.WindowSpec(frame_mel_offset=-2),
  "offset -7": window_sampler.WindowSpec(frame_mel_offset=-7),
  "far": window_sampler.WindowSpec(
    min_negative_distance=6, min_reference_distance=9
  ),
  "other sizes": window_sampler.WindowSpec(frames=3, mel_columns=10),
}


def draw(sampler, batches=40, size=1000, seed=3) -> window_sampler.Rows:
  parts = [sampler.rows(seed, step, size) for step in range(batches)]
  return window_sampler.Rows(
    *(
      np.concatenate([getattr(part, field.name) for part in parts])
      for field in dataclasses.fields(window_sampler.Rows)
    )
  )


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_window_is_valid_and_every_valid_one_is_chosen(stage, name):
  spec = SPECS[name]
  sampler = window_sampler.WindowSampler(make_index(), spec, stage)
  rows = draw(sampler)
  usable = set()
  for i, shape in enumerate(SHAPES):
    expected = valid_pairs(shape, spec, stage)
    here = rows.record == i
    found = set(
      zip(rows.audio[here].tolist(), rows.other[here].tolist(), strict=True)
    )
    assert found <= expected, f"record {i}"
    if expected:
      usable.add(i)
    # Where chance cannot have left one out.
    if len(expected) < 350:
      assert found == expected, f"record {i}"
    # In the others every start at least.
    assert {a for a, _ in found} == {a for a, _ in expected}
    assert {b for _, b in found} == {b for _, b in expected}
  assert set(rows.record.tolist()) == usable
  # The table has records of both kinds.
  assert 2 < len(usable) < len(SHAPES)


@pytest.mark.parametrize("stage", STAGES)
def test_labels_and_targets_agree(stage):
  sampler = window_sampler.WindowSampler(
    make_index(), window_sampler.WindowSpec(), stage
  )
  rows = draw(sampler, batches=5)
  for field in dataclasses.fields(rows):
    value = getattr(rows, field.name)
    assert value.shape == (5000,)
    assert value.dtype == np.int64, field.name
  assert (rows.other != rows.audio).all()
  if stage == "expert":
    assert set(rows.in_sync.tolist()) == {0, 1}
    synced = rows.in_sync == 1
    assert (rows.target[synced] == rows.audio[synced]).all()
    assert (rows.target[~synced] == rows.other[~synced]).all()
    # A fair coin: five standard deviations.
    assert abs(synced.mean() - 0.5) < 5 * 0.5 / np.sqrt(5000)
    # It does not depend on the record.
    table = [
      [
        np.sum(synced & (rows.record == i)),
        np.sum(~synced & (rows.record == i)),
      ]
      for i in np.unique(rows.record)
    ]
    assert scipy.stats.chi2_contingency(table).pvalue > LEAST_P
  else:
    assert (rows.in_sync == 1).all()
    assert (rows.target == rows.audio).all()


@pytest.mark.parametrize("stage", STAGES)
def test_rows_are_a_function_of_seed_and_step(stage):
  spec = window_sampler.WindowSpec()
  one = window_sampler.WindowSampler(make_index(), spec, stage)
  two = window_sampler.WindowSampler(make_index(), spec, stage)
  forwards = [one.rows(7, step, 64) for step in range(6)]
  two.rows(1, 1, 5)
  backwards = [two.rows(7, step, 64) for step in reversed(range(6))]
  for a, b in zip(forwards, reversed(backwards), strict=True):
    for field in dataclasses.fields(a):
      np.testing.assert_array_equal(
        getattr(a, field.name), getattr(b, field.name)
      )


@pytest.mark.parametrize("stage", STAGES)
def test_steps_and_seeds_differ(stage):
  sampler = window_sampler.WindowSampler(
    make_index(), window_sampler.WindowSpec(), stage
  )
  seen = set()
  pairs = [(seed, step) for seed in range(5) for step in range(5)]
  for seed, step in pairs:
    rows = sampler.rows(seed, step, 32)
    seen.add((tuple(rows.record), tuple(rows.audio), tuple(rows.other)))
    # Nor do they share rows that drew the same numbers.
    seen.add(tuple(rows.record))
  assert len(seen) == 2 * len(pairs)


@pytest.mark.parametrize("stage", STAGES)
def test_global_numpy_seed_is_left_alone(stage):
  sampler = window_sampler.WindowSampler(
    make_index(), window_sampler.WindowSpec(), stage
  )
  np.random.seed(0)
  first = sampler.rows(0, 0, 8)
  expected = np.random.RandomState(0).uniform()
  assert np.random.uniform() == expected
  np.testing.assert_array_equal(sampler.rows(0, 0, 8).audio, first.audio)


def uniform_p(values, possible) -> float:
  counts = [np.sum(values == v) for v in possible]
  assert sum(counts) == len(values)
  return scipy.stats.chisquare(counts).pvalue


@pytest.mark.parametrize("stage", STAGES)
def test_choices_are_uniform(stage):
  spec = window_sampler.WindowSpec(
    min_negative_distance=3, min_reference_distance=3
  )
  rows = draw(window_sampler.WindowSampler(make_index(), spec, stage), seed=11)
  pairs = {
    i: found
    for i, shape in enumerate(SHAPES)
    if (found := valid_pairs(shape, spec, stage))
  }
  # Records, long or short.
  assert uniform_p(rows.record, list(pairs)) > LEAST_P
  tested = 0
  for i, found in pairs.items():
    here = rows.record == i
    starts = sorted({a for a, _ in found})
    # Windows of a record.
    assert uniform_p(rows.audio[here], starts) > LEAST_P
    # Second windows, given the first: in the middle and at the ends.
    for start in {starts[0], starts[len(starts) // 2], starts[-1]}:
      others = [b for a, b in found if a == start]
      chosen = rows.other[here & (rows.audio == start)]
      if len(others) > 1 and len(chosen) >= 5 * len(others):
        assert uniform_p(chosen, others) > LEAST_P
        tested += 1
  assert tested >= 4


@pytest.mark.parametrize("stage", ["expert", "two_way"])
def test_speech_only_takes_windows_above_the_threshold(stage):
  rng = np.random.default_rng(0)
  shapes = [(40, 129), (40, 129), (30, 97)]
  means = np.concatenate(
    [
      # Loud in places, and silent.
      np.repeat(rng.choice([-4.0, 1.0], 43), 3),
      np.full(129, -4.0),
      rng.uniform(-4, 0, 97),
    ]
  ).astype(np.float32)
  spec = window_sampler.WindowSpec(speech_only=True, speech_threshold=-1.9)
  index = make_index(shapes, means)
  rows = draw(window_sampler.WindowSampler(index, spec, stage))
  begin = 0
  left_out = 0
  for i, shape in enumerate(shapes):
    mine = means[begin : begin + shape[1]].astype(np.float64)
    begin += shape[1]

    def speech(f, mine=mine):
      return mine[first_column(f) : first_column(f) + 16].mean() > -1.9

    expected = {a for a, _ in valid_pairs(shape, spec, stage, speech)}
    everything = {a for a, _ in valid_pairs(shape, spec, stage)}
    left_out += len(everything - expected)
    assert set(rows.audio[rows.record == i].tolist()) == expected
  assert left_out > 40
  assert set(rows.record.tolist()) == {0, 2}
  # The second window needs no speech.
  assert set(rows.other.tolist()) == set(range(36))


def test_speech_does_not_matter_to_the_generator():
  means = np.full(sum(mel for _, mel in SHAPES), -4.0, np.float32)
  index = make_index(means=means)
  quiet = window_sampler.WindowSpec(speech_only=True)
  a = window_sampler.WindowSampler(index, quiet, "generator").rows(0, 0, 50)
  b = window_sampler.WindowSampler(
    index, window_sampler.WindowSpec(), "generator"
  ).rows(0, 0, 50)
  np.testing.assert_array_equal(a.audio, b.audio)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
  "shapes",
  [
    [(4, 200)],
    [(5, 200), (60, 15), (0, 0)],
    # One window and no other.
    [(5, 17)],
    [],
  ],
)
def test_nothing_usable(stage, shapes):
  with pytest.raises(dataset.DatasetError) as caught:
    window_sampler.WindowSampler(
      make_index(shapes), window_sampler.WindowSpec(), stage
    )
  message = str(caught.value)
  assert f"none of the {len(shapes)} records" in message
  assert "5 frames" in message
  assert "16 mel columns" in message
  assert "at least 1 frames away" in message
  assert "config.windows" in message
  assert "mean mel" not in message


def test_nothing_but_silence():
  means = np.full(sum(mel for _, mel in SHAPES), -4.0, np.float32)
  spec = window_sampler.WindowSpec(speech_only=True)
  with pytest.raises(dataset.DatasetError, match="mean mel above -2.5"):
    window_sampler.WindowSampler(make_index(means=means), spec, "expert")


def test_rows_can_be_sliced():
  rows = window_sampler.Rows(*(np.arange(10) + 100 * i for i in range(5)))
  part = rows[2:5]
  assert isinstance(part, window_sampler.Rows)
  assert part.record.tolist() == [2, 3, 4]
  assert part.audio.tolist() == [102, 103, 104]
  assert part.target.tolist() == [202, 203, 204]
  assert part.other.tolist() == [302, 303, 304]
  assert part.in_sync.tolist() == [402, 403, 404]
  picked = rows[np.array([7, 0])]
  assert picked.audio.tolist() == [107, 100]
  assert picked.in_sync.tolist() == [407, 400]


@pytest.mark.parametrize("distance", [1, 3, 8])
def test_windows_of_one_clip_follow_each_other(distance):
  """The contrastive expert's batches: in sync, valid, far enough apart."""
  spec = window_sampler.WindowSpec(
    windows_per_clip=4, min_negative_distance=distance
  )
  sampler = window_sampler.WindowSampler(make_index(), spec, "expert")
  single = dataclasses.replace(spec, windows_per_clip=1)
  valid = [
    {a for a, _ in valid_pairs(shape, single, "expert")} for shape in SHAPES
  ]
  seen = set()
  for step in range(200):
    rows = sampler.rows(3, step, 24)
    np.testing.assert_array_equal(rows.audio, rows.target)
    assert np.all(rows.in_sync == 1)
    for start in range(0, 24, 4):
      group = rows[slice(start, start + 4)]
      assert len(set(group.record)) == 1
      assert set(group.audio) <= valid[group.record[0]]
      gaps = np.diff(np.sort(group.audio))
      assert gaps.min() >= distance
      seen |= {(int(group.record[0]), int(a)) for a in group.audio}
  # Every window is chosen sometime, of clips that can hold four: where four
  # only just fit in, most windows are in no such group.
  for record, frames in enumerate(valid):
    fits = len(
      range(min(frames, default=1), max(frames, default=0) + 1, distance)
    )
    if fits < 4:
      assert not any(r == record for r, _ in seen)
    elif fits > 6:
      assert {(record, a) for a in frames} <= seen
    else:
      assert any(r == record for r, _ in seen)
  with pytest.raises(dataset.DatasetError, match="10 does not divide by"):
    sampler.rows(3, 0, 10)
  many = dataclasses.replace(spec, windows_per_clip=99)
  with pytest.raises(dataset.DatasetError, match="99 such windows a clip"):
    window_sampler.WindowSampler(make_index(), many, "expert")


def test_evaluation_pairs_are_the_same_for_a_contrastive_expert():
  """two_way and the generator know no groups."""
  spec = window_sampler.WindowSpec(windows_per_clip=4)
  for stage in ("two_way", "generator"):
    rows = [
      window_sampler.WindowSampler(
        make_index(), dataclasses.replace(spec, windows_per_clip=n), stage
      ).rows(0, 1, 16)
      for n in (1, 4)
    ]
    np.testing.assert_array_equal(rows[0].other, rows[1].other)
