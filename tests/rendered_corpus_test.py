"""The embedded corpus: speech, mouth tracks, faces, files; and its measure."""

import importlib.util
import json
import os
import sys

import cv2
import numpy as np
import pytest

from data_prep import (
  articulation,
  clips,
  face_renderer,
  prepare,
  rendered_corpus,
  speech_synthesis,
)
from w2l_jax import dataset, video, windows
from w2l_jax.evaluation import mouth_measure

needs_synthesiser = pytest.mark.skipif(
  importlib.util.find_spec("espeakng_loader") is None,
  reason="no espeakng-loader wheel for this platform",
)
SPEC = rendered_corpus.CorpusSpec(seed=3, identities=(2, 1, 1), clips=1)


@pytest.fixture(scope="session")  # Other modules may run between.
def corpus(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("corpus"))
  rendered_corpus.render(SPEC, folder, workers=2)
  return folder


# --- Speech -----------------------------------------------------------------


@needs_synthesiser
def test_speech_has_phonemes_in_time():
  bob, silence = speech_synthesis.synthesize(
    [
      speech_synthesis.Utterance("Bob"),
      speech_synthesis.Utterance("Bob", voice="en-us+f3", rate=120),
    ]
  )
  letters = "".join(symbol for symbol, _ in bob.phonemes)
  assert letters.count("b") == 2
  starts = [start for _, start in bob.phonemes]
  assert starts == sorted(starts)
  assert starts[-1] <= len(bob.waveform) / bob.sample_rate + 1e-3
  # The vowel is louder than the closures around it.
  vowel = next(i for i, (s, _) in enumerate(bob.phonemes) if "b" not in s)
  loud = bob.waveform.astype(float) ** 2
  rate = bob.sample_rate
  inside = loud[int(starts[vowel] * rate) : int(starts[vowel + 1] * rate)]
  assert inside.mean() > 2 * loud[: int(starts[vowel] * rate)].mean()
  assert len(silence.waveform) > len(bob.waveform)


@needs_synthesiser
def test_the_same_list_gives_the_same_samples():
  said = [speech_synthesis.Utterance("A warm wave")] * 2
  first, second = (speech_synthesis.synthesize(said) for _ in range(2))
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a.waveform, b.waveform)
    assert a.phonemes == b.phonemes


@needs_synthesiser
def test_an_unknown_voice_is_named():
  with pytest.raises(speech_synthesis.SynthesisError, match="no voice 'xx'"):
    speech_synthesis.synthesize([speech_synthesis.Utterance("A", voice="xx")])


def test_no_synthesiser_is_one_sentence(monkeypatch):
  monkeypatch.setitem(sys.modules, "espeakng_loader", None)
  with pytest.raises(speech_synthesis.SynthesisError, match="demo") as error:
    speech_synthesis.synthesize([speech_synthesis.Utterance("A")])
  assert "\n" not in str(error.value)


# --- Mouth tracks -----------------------------------------------------------


def test_lips_close_for_closures_and_open_for_vowels():
  """apa ubu: shut in the middle, open and round where they should be."""
  phonemes = (
    ("ɑ", 0.0), ("p", 0.2), ("ɑ", 0.3), ("u", 0.6), ("b", 0.8), ("u", 0.9),
    ("", 1.1),
  )  # fmt: skip
  track = articulation.mouth_track(phonemes, 1.5, 150, fps=100)
  at = lambda seconds: round(seconds * 100)  # noqa: E731
  assert track.opening[at(0.25)] < 0.1
  assert track.opening[at(0.85)] < 0.1
  assert track.opening[at(0.45)] > 0.7
  assert track.opening[at(0.7)] < track.opening[at(0.45)] - 0.3
  assert track.width[at(0.7)] < 0.2 < 0.45 < track.width[at(0.45)]
  assert track.opening[at(1.45)] < 0.05
  assert track.opening.min() >= 0
  assert track.opening.max() <= 1
  # No jumps: it is the neighbours' pull that shapes each phoneme.
  assert np.abs(np.diff(track.opening)).max() < 0.15


def test_neighbours_change_a_phoneme():
  alone = articulation.mouth_track((("t", 0.0),), 0.1, 10, 100)
  beside = articulation.mouth_track(
    (("ɑ", 0.0), ("t", 0.1), ("ɑ", 0.2)), 0.3, 30, 100
  )
  assert beside.opening[15] > alone.opening[5] + 0.1


def test_diphthongs_move():
  track = articulation.mouth_track((("aʊ", 0.0), ("", 0.4)), 0.4, 40, 100)
  assert track.width[12] > track.width[28] + 0.15


def test_every_phoneme_of_the_sentences_has_a_shape():
  """A letter without a shape would count as silence in the middle of a word."""
  pytest.importorskip("espeakng_loader")
  texts = [t for group in rendered_corpus.SENTENCES.values() for t in group]
  speeches = speech_synthesis.synthesize(
    [speech_synthesis.Utterance(text) for text in texts]
  )
  unknown = {
    symbol
    for speech in speeches
    for symbol, _ in speech.phonemes
    if symbol
    and not any(
      c in articulation._BY_LETTER for c in articulation._letters(symbol)
    )
  }
  assert not unknown


# --- Faces ------------------------------------------------------------------


def track(opening, width=0.5):
  opening = np.asarray(opening, np.float32)
  return articulation.MouthTrack(opening, np.full_like(opening, width))


def test_only_mouth_and_jaw_move_with_the_mouth():
  """Shut and open frames differ in the lower half of the face alone."""
  renderer = face_renderer.FaceRenderer(face_renderer.draw_identity(1))
  closed = next(renderer.render(track([0.0]), 0, 25)).astype(int)
  opened = next(renderer.render(track([1.0]), 0, 25)).astype(int)
  changed = np.abs(closed - opened).max(axis=-1) > 12
  rows, columns = np.nonzero(changed)
  assert rows.min() > 128
  assert changed.sum() > 500
  assert 50 < columns.min() < columns.max() < 206


def test_identities_differ_and_repeat():
  faces = [
    next(
      face_renderer.FaceRenderer(face_renderer.draw_identity(seed)).render(
        track([0.3]), 0, 25
      )
    )
    for seed in (1, 1, 2)
  ]
  np.testing.assert_array_equal(faces[0], faces[1])
  assert np.abs(faces[0].astype(int) - faces[2]).mean() > 10


def test_the_true_opening_is_what_is_drawn():
  """The drawn gap, counted in dark rows of the mouth's middle, is the truth."""
  identity = face_renderer.draw_identity(4)
  openings = np.linspace(0.2, 1, 9)
  truth = face_renderer.true_mouth(identity, track(openings))
  np.testing.assert_allclose(
    truth["opening"], openings * identity.mouth_opening, rtol=1e-5
  )
  outlines = [
    face_renderer.mouth_outlines(identity, float(o), 0.5)[1] for o in openings
  ]
  np.testing.assert_allclose(
    [np.ptp(outline[:, 1]) for outline in outlines], truth["opening"], rtol=1e-3
  )
  np.testing.assert_allclose(
    [np.ptp(outline[:, 0]) for outline in outlines], truth["width"], rtol=1e-5
  )


# --- Corpus -----------------------------------------------------------------


def test_splits_share_no_face_and_no_sentence():
  planned = rendered_corpus.plan(rendered_corpus.CorpusSpec())
  for what in ("face_seed", "text"):
    seen = {}
    for clip in planned:
      value = clip.face_seed if what == "face_seed" else clip.utterance.text
      assert seen.setdefault(value, clip.split) == clip.split
  assert {clip.split for clip in planned} == set(dataset.SPLITS)
  names = [clip.name for clip in planned]
  assert len(set(names)) == len(names) == (24 + 3 + 4) * 5


@needs_synthesiser
def test_corpus_is_ordinary_video_and_prepares(corpus, tmp_path):
  """H.264 and AAC, found by the default detector, truth for every frame."""
  planned = rendered_corpus.plan(SPEC)
  for clip in planned:
    path = os.path.join(corpus, "videos", f"{clip.name}.mp4")
    frames = list(video.frames_at_rate(path, windows.FPS))
    assert frames[0].shape == (256, 256, 3)
    truth = rendered_corpus.true_mouth(corpus, clip.name)
    assert len(truth["opening"]) == len(truth["width"]) == len(frames)
    waveform, rate = video.read_audio(path)
    assert abs(len(waveform) / rate - len(frames) / windows.FPS) < 0.1
    assert np.abs(waveform).max() > 0.1
  report = prepare.prepare(
    os.path.join(corpus, "videos"),
    str(tmp_path),
    clips.Settings(image_size=96),
    splits_folder=os.path.join(corpus, "splits"),
    workers=2,
  )
  assert report.records == {"train": 2, "val": 1, "test": 1}
  assert not report.set_aside
  # The measure follows the truth on prepared crops, sharp and blurred.
  for name in ("train", "test"):
    split = dataset.Split(dataset.builder_dir(str(tmp_path), 96), name)
    for i in range(len(split)):
      crops = dataset.decode_frames(split[i])
      truth = rendered_corpus.true_mouth(corpus, dataset.text(split[i]["id"]))
      soft = np.stack([cv2.GaussianBlur(c, (0, 0), 1) for c in crops])
      for frames, least in ((crops, 0.9), (soft, 0.8)):
        correlation = mouth_measure.track_correlation(
          mouth_measure.mouth_opening(frames), truth["opening"]
        )
        assert correlation > least


@needs_synthesiser
def test_rendering_goes_on_and_repeats(corpus, tmp_path):
  """A lost clip is made again, alone, with the same bytes."""
  before = rendered_corpus.digest(corpus)
  name = rendered_corpus.plan(SPEC)[1].name
  path = os.path.join(corpus, "videos", f"{name}.mp4")
  others = os.path.join(
    corpus, "videos", f"{rendered_corpus.plan(SPEC)[0].name}.mp4"
  )
  stamp = os.stat(others).st_mtime_ns
  os.remove(path)
  rendered_corpus.render(SPEC, corpus, workers=1)
  assert rendered_corpus.digest(corpus) == before
  assert os.stat(others).st_mtime_ns == stamp


def test_a_folder_of_another_corpus_is_refused(tmp_path):
  (tmp_path / "corpus.json").write_text(json.dumps({"spec": {}, "clips": {}}))
  with pytest.raises(ValueError, match="describes another corpus"):
    rendered_corpus.render(SPEC, str(tmp_path), workers=1)


# --- The measure ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_mouth_measure_follows_rendered_openings(seed):
  """Crops by hand, so that no detector stands between."""
  rng = np.random.default_rng(seed)
  identity = face_renderer.draw_identity(100 + seed)
  shapes = articulation.MouthTrack(
    rng.uniform(0, 1, 30).astype(np.float32),
    rng.uniform(0, 1, 30).astype(np.float32),
  )
  crops = np.stack(
    [
      cv2.resize(frame[72:216, 58:198], (96, 96), interpolation=cv2.INTER_AREA)
      for frame in face_renderer.FaceRenderer(identity).render(shapes, 0, 25)
    ]
  )
  measured = mouth_measure.mouth_opening(crops)
  assert measured.shape == (30,)
  assert mouth_measure.track_correlation(measured, shapes.opening) > 0.9


def test_track_correlation():
  a = np.array([1.0, 2.0, 4.0])
  assert mouth_measure.track_correlation(a, 3 * a + 1) == pytest.approx(1)
  assert mouth_measure.track_correlation(a, -a) == pytest.approx(-1)
  assert mouth_measure.track_correlation(a, np.ones(3)) == 0
