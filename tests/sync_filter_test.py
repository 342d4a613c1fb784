"""Offsets and confidence of made-up embeddings; shifting a record's parts."""

import dataclasses

import numpy as np
import pytest
from conftest import SETTINGS, babble

from data_prep import records, sync_filter
from w2l_jax import audio, dataset, judges

DIMENSIONS = 32


def unit(rng, n):
  x = rng.standard_normal((n, DIMENSIONS)).astype(np.float32)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def features(offset, n=60, seed=0, noise=0.5):
  """Lips that say what the speech says, `offset` frames later."""
  rng = np.random.default_rng(seed)
  said = unit(rng, n + 40)
  lips = said[20 - offset : 20 - offset + n] + noise * unit(rng, n)
  return judges.Features(
    lips / np.linalg.norm(lips, axis=1, keepdims=True),
    said[20 : 20 + n],
    rng.random(n) < 0.8,
  )


def test_similarity_by_shift_against_loops():
  rng = np.random.default_rng(3)
  lips = judges.Features(unit(rng, 25), unit(rng, 25), np.ones(25, bool))
  speech = judges.Features(unit(rng, 22), unit(rng, 22), rng.random(22) < 0.7)
  found = sync_filter.similarity_by_shift(lips, speech, 15)
  for k in range(-15, 16):
    pairs = [
      float(speech.speech[v] @ lips.lips[v + k])
      for v in range(22)
      if speech.has_speech[v] and 0 <= v + k < 22
    ]
    if len(pairs) < 8:
      assert np.isnan(found[15 + k])
    else:
      assert found[15 + k] == pytest.approx(np.mean(pairs), abs=1e-6)


@pytest.mark.parametrize("offset", [-10, -3, 0, 1, 7])
def test_the_offset_is_found(offset):
  f = features(offset)
  sync = sync_filter.measure(f, f)
  assert sync.offset == offset
  assert sync.confidence > 0.4


def test_too_little_speech_to_tell():
  f = dataclasses.replace(features(0), has_speech=np.zeros(60, bool))
  assert sync_filter.measure(f, f) is None
  what, why = sync_filter.decide(None, sync_filter.Thresholds())
  assert what == sync_filter.DROPPED and "too little speech" in why


def test_the_least_confidence_is_chosen_by_mismatched_records():
  sample = [features(0, seed=i) for i in range(60)]
  wrong = sync_filter.mismatched(sample)
  assert len(wrong) == 60
  thresholds = sync_filter.choose_confidence(
    sync_filter.Thresholds(max_mismatched=0.1), wrong
  )
  passing = [sync_filter.decide(s, thresholds)[0] for s in wrong]
  assert passing.count(sync_filter.DROPPED) >= 54
  right = [sync_filter.measure(f, f) for f in sample]
  assert {sync_filter.decide(s, thresholds)[0] for s in right} == {
    sync_filter.KEPT
  }
  # One that is given stays.
  given = sync_filter.Thresholds(min_confidence=0.2)
  assert sync_filter.choose_confidence(given, []) == given
  with pytest.raises(ValueError, match="only 3 .*--min_confidence"):
    sync_filter.choose_confidence(sync_filter.Thresholds(), wrong[:3])


@pytest.mark.parametrize(
  ("offset", "confidence", "what"),
  [
    (0, 0.31, "kept"),
    (1, 0.31, "kept"),
    (-1, 0.31, "kept"),
    (2, 0.31, "shifted"),
    (-10, 0.31, "shifted"),
    (11, 0.31, "dropped"),
    (0, 0.29, "dropped"),
  ],
)
def test_decide(offset, confidence, what):
  thresholds = sync_filter.Thresholds(min_confidence=0.3)
  sync = sync_filter.Sync(offset, confidence)
  assert sync_filter.decide(sync, thresholds)[0] == what


@pytest.mark.parametrize("offset", [4, -4])
def test_shift_lays_what_belongs_together_beside_each_other(offset):
  sound = babble(2.0)
  record = records.Record(
    id="a",
    # Frame i shows instant i - offset of the speech.
    frames=[b"%d" % i for i in range(50)],
    mel=audio.log_mel(sound),
    audio=records.flac(sound),
    boxes=np.arange(200, dtype=np.float32).reshape(50, 4),
    file="a.mp4",
    start=1.0,
    sha256="",
    speaker="",
    settings=SETTINGS.as_json(),
    confidence=1.0,
    sharpness=1.0,
  )
  shifted = sync_filter.shift(record, offset, "reflect")
  assert len(shifted.frames) == len(shifted.boxes) == 46
  first_frame = int(shifted.frames[0])
  heard = dataset.decode_audio({"audio": shifted.audio})
  assert len(heard) == 46 * 640
  first_sound = max(0, -offset)
  np.testing.assert_allclose(
    heard, sound[first_sound * 640 :][: len(heard)], atol=1 / 16_000
  )
  assert first_frame - first_sound == offset
  assert shifted.boxes[0, 0] == 4 * first_frame
  assert shifted.start == pytest.approx(1 + first_frame / 25)
  np.testing.assert_array_equal(shifted.mel, audio.log_mel(heard))
  # Columns well inside are those of the whole record's spectrogram.
  if offset < 0:
    begin = round(first_sound * 80 / 25)
    if first_sound * 640 % 200 == 0:
      np.testing.assert_allclose(
        shifted.mel[5:20], record.mel[begin + 5 : begin + 20], atol=1e-2
      )
