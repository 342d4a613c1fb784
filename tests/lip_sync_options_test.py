"""Options: unknown words and impossible numbers are refused."""

import dataclasses

import pytest

from configs import gan_grid
from w2l_jax import lip_sync_options, sources
from w2l_jax.lip_sync_options import Options


@pytest.mark.parametrize(
  ("choices", "message"),
  [
    ({"loop": "bounce"}, "loop is 'bounce', expected one"),
    ({"paste": "soft"}, "paste is 'soft', expected one"),
    ({"faces": "smallest"}, "faces is 'smallest', expected one"),
    ({"faces": "0"}, "counting begins at 1"),
    ({"faces": -1}, "counting begins at 1"),
    ({"box": (50, 40, 0, 9)}, "expected top, bottom, left, right"),
    ({"fps": 0}, "fps is 0"),
    ({"hold_seconds": -1}, "hold_seconds is -1"),
    ({"align_eyes": True, "paste": "hard"}, "does not go with a hard paste"),
    ({"align_eyes": True, "compat": True}, "does not go with compat"),
    ({"align_eyes": True, "box": (1, 9, 1, 9)}, "does not go with a box"),
  ],
)
def test_bad_options(choices, message):
  with pytest.raises(sources.InferenceError, match=message):
    Options(**choices)


def test_words_and_numbers(tmp_path):
  assert Options(faces="3").faces == 3
  assert Options(box=(-1, -1, -1, -1)).box is None  # The original's "none".
  photo = tmp_path / "person.png"
  photo.write_bytes(b"")
  assert Options(faces=str(photo)).faces == str(photo)
  for name, words in lip_sync_options.CHOICES.items():
    for word in words:
      assert getattr(Options(**{name: word}), name) == word


def test_configs_and_compat_name_options():
  names = {field.name for field in dataclasses.fields(Options)}
  assert set(lip_sync_options.ORIGINAL) < names
  assert set(lip_sync_options.CHOICES) < names
  Options(**lip_sync_options.ORIGINAL)
  # A config's defaults are the dataclass's, where it has any.
  config = gan_grid.get_config().inference.to_dict()
  defaults = dataclasses.asdict(Options())
  assert config == {name: defaults[name] for name in config}
