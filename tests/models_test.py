"""Sizes, shapes, initial weights and precision of the networks."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from w2l_jax import models

# Inputs of each network for faces of side s, and the original's parameters, 96.
NETWORKS = {
  models.SyncExpert: (
    lambda s: ((2, 80, 16, 1), (2, s // 2, s, 15)),
    16_435_072,
  ),
  models.Generator: (lambda s: ((2, 80, 16, 1), (2, s, s, 6)), 36_298_035),
  models.QualityDiscriminator: (lambda s: ((2, s // 2, s, 3),), 14_113_793),
}


def abstract(shapes):
  return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def init_shapes(model, shapes):
  return jax.eval_shape(model.init, jax.random.key(0), *abstract(shapes))


def count(params):
  return sum(x.size for x in jax.tree.leaves(params))


def random_variables(model, shapes, seed=0):
  """Variables of plausible sizes without compiling an init."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      fan_in = np.prod(leaf.shape[:-1])
      return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    return rng.normal(0, 0.1, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, init_shapes(model, shapes))


def test_every_network_is_listed():
  classes = {
    c
    for _, c in inspect.getmembers(models, inspect.isclass)
    if issubclass(c, nn.Module)
  }
  assert classes == set(NETWORKS)


@pytest.mark.parametrize("network", NETWORKS)
def test_parameter_count(network):
  shapes, expected = NETWORKS[network]
  assert count(init_shapes(network(), shapes(96))["params"]) == expected


def test_parameter_count_of_parts():
  """Speech and face encoders by themselves."""
  shapes, _ = NETWORKS[models.SyncExpert]
  params = init_shapes(models.SyncExpert(), shapes(96))["params"]
  assert count(params["face_encoder"]) == 13_031_808
  assert count(params["audio_encoder"]) == 3_403_264
  shapes, _ = NETWORKS[models.Generator]
  variables = init_shapes(models.Generator(), shapes(96))
  params = variables["params"]
  part = lambda prefix: count(  # noqa: E731
    {k: v for k, v in params.items() if k.startswith(prefix)}
  )
  assert part("audio_encoder") == 2_812_672
  assert part("face_encoder") == 8_171_056
  assert part("face_decoder") + part("output_block") == 25_314_307
  norms = [
    path
    for path, _ in jax.tree_util.tree_leaves_with_path(variables["batch_stats"])
    if path[-1].key == "mean"
  ]
  assert len(norms) == 50


@pytest.mark.parametrize(
  ("size", "width"), [(24, 1), (48, 1 / 32), (96, 1), (96, 0.25), (384, 1)]
)
def test_output_shapes(size, width):
  dim = round(512 * width)
  expected = {
    models.SyncExpert: ((2, dim), (2, dim)),
    models.Generator: (2, size, size, 3),
    models.QualityDiscriminator: (2, 1),
  }
  for network, (shapes, _) in NETWORKS.items():
    model = network(width=width, image_size=size)
    inputs = abstract(shapes(size))
    variables = init_shapes(model, shapes(size))
    out = jax.eval_shape(model.apply, variables, *inputs)
    assert jax.tree.map(lambda x: x.shape, out) == expected[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_doubled_size_adds_one_stage(network):
  """Twice the side: the same blocks and one more stride-2 stage."""
  shapes, _ = NETWORKS[network]
  kernels = {}
  for size in (48, 96, 192):
    params = init_shapes(network(image_size=size), shapes(size))["params"]
    kernels[size] = {
      jax.tree_util.keystr(path): leaf.shape
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
      if path[-1].key == "kernel"
    }
  added = len(kernels[192]) - len(kernels[96])
  # Encoder stage (+ residual) and decoder stage (+ two residuals) at most.
  assert 1 <= added <= 5
  assert 0 < len(kernels[96]) - len(kernels[48]) <= 6


# Height and width after each block (the original's), for 96-pixel faces.
EXPERT_FACE = (
  [(48, 96)] + [(46, 47)] * 3 + [(23, 24)] * 4 + [(12, 12)] * 3
  + [(6, 6)] * 3 + [(3, 3)] + [(1, 1)] * 2
)  # fmt: skip
EXPERT_AUDIO = (
  [(80, 16)] * 3 + [(27, 16)] * 3 + [(9, 6)] * 3 + [(3, 3)] * 3 + [(1, 1)] * 2
)


def block_outputs(model, shapes):
  """Returns {path of a submodule: shape of its output}."""
  variables = init_shapes(model, shapes)
  _, state = jax.eval_shape(
    lambda v, *a: model.apply(v, *a, capture_intermediates=True),
    variables,
    *abstract(shapes),
  )
  return {
    tuple(k.key for k in path if hasattr(k, "key"))[:-1]: leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(
      state["intermediates"]
    )
  }


def test_expert_maps():
  shapes, _ = NETWORKS[models.SyncExpert]
  outputs = block_outputs(models.SyncExpert(), shapes(96))
  for encoder, sizes in (
    ("face_encoder", EXPERT_FACE),
    ("audio_encoder", EXPERT_AUDIO),
  ):
    for i, size in enumerate(sizes):
      assert outputs[(encoder, f"block_{i}")][1:3] == size, (encoder, i)
    assert (encoder, f"block_{len(sizes)}") not in outputs


def test_generator_maps():
  shapes, _ = NETWORKS[models.Generator]
  outputs = block_outputs(models.Generator(), shapes(96))
  encoder = [(96, 16), (48, 32), (24, 64), (12, 128), (6, 256), (3, 512)]
  for i, (size, channels) in enumerate(encoder):
    assert outputs[(f"face_encoder_blocks_{i}_0",)][1:] == (
      size, size, channels,
    )  # fmt: skip
  decoder = [
    (1, 512), (3, 512), (6, 512), (12, 384), (24, 256), (48, 128), (96, 64)
  ]  # fmt: skip
  for i, (size, channels) in enumerate(decoder):
    assert outputs[(f"face_decoder_blocks_{i}_0",)][1:] == (
      size, size, channels,
    )  # fmt: skip
  # Residual blocks of each stage.
  residuals = {
    "face_encoder": [0, 2, 3, 2, 2, 1, 1],  # the last is a 1x1, no residual
    "face_decoder": [0, 1, 2, 2, 2, 2, 2],
  }
  for part, counts in residuals.items():
    for i, n in enumerate(counts):
      assert (f"{part}_blocks_{i}_{n}",) in outputs
      assert (f"{part}_blocks_{i}_{n + 1}",) not in outputs


def test_discriminator_maps():
  shapes, _ = NETWORKS[models.QualityDiscriminator]
  outputs = block_outputs(models.QualityDiscriminator(), shapes(96))
  sizes = [(48, 96), (48, 48), (24, 24), (12, 12), (6, 6), (3, 3), (1, 1)]
  for i, size in enumerate(sizes):
    assert outputs[(f"face_encoder_blocks_{i}_0",)][1:3] == size


def test_expert_embeddings_are_unit_and_non_negative():
  model = models.SyncExpert(width=1 / 16)
  shapes = NETWORKS[models.SyncExpert][0](96)
  variables = random_variables(model, shapes)
  rng = np.random.default_rng(1)
  mel = rng.uniform(-4, 4, shapes[0]).astype(np.float32)
  faces = rng.uniform(0, 1, shapes[1]).astype(np.float32)
  for embedding in jax.jit(model.apply)(variables, mel, faces):
    np.testing.assert_allclose(
      np.linalg.norm(embedding, axis=-1), 1.0, rtol=1e-6
    )
    assert np.all(embedding >= 0)


@pytest.mark.parametrize("network", NETWORKS)
def test_wrong_shapes_are_named(network):
  shapes, _ = NETWORKS[network]
  with pytest.raises(ValueError, match="expected"):
    init_shapes(network(image_size=96), shapes(48))
  with pytest.raises(ValueError, match="image_size is 90"):
    init_shapes(network(image_size=90), shapes(90))


def test_longer_windows_need_no_other_network():
  """Nine frames and 29 mel columns, as a contrastive expert may take."""
  shapes = ((2, 80, 29, 1), (2, 48, 96, 27))
  model = models.SyncExpert()
  out = jax.eval_shape(
    model.apply, init_shapes(model, shapes), *abstract(shapes)
  )
  assert [x.shape for x in out] == [(2, 512), (2, 512)]


def test_init_is_pytorchs():
  """Kernels and biases of all kinds fill U(-b, b), b = 1 / sqrt(fan_in)."""
  shapes, _ = NETWORKS[models.Generator]
  model = models.Generator(width=0.25)
  variables = jax.jit(lambda key: model.init(
    key, *(jnp.zeros(s) for s in shapes(96))
  ))(jax.random.key(0))  # fmt: skip
  params = variables["params"]
  transposed = params["face_decoder_blocks_2_0"]
  conv = params["face_decoder_blocks_2_1"]["conv"]
  for leaf, fan_in in (
    (transposed["kernel"], 9 * 128),  # fan_in of (in, out, 3, 3): out * 9
    (transposed["bias"], 9 * 128),
    (conv["kernel"], 9 * 128),
    (conv["bias"], 9 * 128),
    (params["output_block_1"]["kernel"], 8),
    (params["audio_encoder"]["block_0"]["conv"]["kernel"], 9),
  ):
    scaled = np.asarray(leaf).ravel() * np.sqrt(fan_in)
    assert np.abs(scaled).max() <= 1
    if scaled.size > 100:
      assert np.abs(scaled).max() > 0.95
      assert abs(scaled.std() - 3**-0.5) < 0.1
  kernel = np.asarray(conv["kernel"]).ravel()
  other = np.asarray(params["face_decoder_blocks_2_2"]["conv"]["kernel"])
  assert abs(np.corrcoef(kernel, other.ravel())[0, 1]) < 0.02
  assert abs(np.corrcoef(kernel[1:], kernel[:-1])[0, 1]) < 0.02
  norm = params["face_decoder_blocks_2_1"]["batch_norm"]
  assert np.all(norm["scale"] == 1) and np.all(norm["bias"] == 0)


def test_he_init_keeps_the_signals_size():
  """Normal of variance 2 / fan_in, no biases: logits depend on the picture."""
  spread = {}
  for initializer in ("torch", "he"):
    model = models.QualityDiscriminator(width=0.25, initializer=initializer)
    variables = jax.jit(model.init)(
      jax.random.key(0), jnp.zeros((1, 48, 96, 3))
    )
    params = variables["params"]
    pictures = np.random.default_rng(0).random((8, 48, 96, 3), np.float32)
    pictures *= np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None]
    spread[initializer] = float(jnp.std(model.apply(variables, pictures)))
    kernel = params["face_encoder_blocks_3_1"]["conv"]["kernel"]
    if initializer == "he":
      standard = np.asarray(kernel).ravel() * np.sqrt(25 * 64 / 2)
      assert abs(standard.mean()) < 0.01
      assert abs(standard.std() - 1) < 0.01
      assert abs(np.mean(standard**4) - 3) < 0.1
      assert not np.any(params["face_encoder_blocks_3_1"]["conv"]["bias"])
  assert spread["torch"] < 1e-3
  assert spread["he"] > 0.05


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_is_of_the_computation_alone(network):
  """Params, statistics and outputs are float32."""
  shapes_of, _ = NETWORKS[network]
  shapes = shapes_of(24)
  model = network(width=1 / 32, image_size=24, dtype=jnp.bfloat16)
  variables = init_shapes(model, shapes)
  for leaf in jax.tree.leaves(variables):
    assert leaf.dtype == jnp.float32
  if network is models.QualityDiscriminator:
    outputs = jax.eval_shape(model.apply, variables, *abstract(shapes))
  else:
    outputs = jax.eval_shape(
      lambda v, *x: model.apply(v, *x, train=True, mutable=["batch_stats"]),
      variables,
      *abstract(shapes),
    )
  for leaf in jax.tree.leaves(outputs):
    assert leaf.dtype == jnp.float32
  # Inside it is not.
  text = str(jax.make_jaxpr(model.apply)(variables, *abstract(shapes)))
  convolutions = [t for t in text.splitlines() if "conv_general_dilated" in t]
  assert convolutions and all("bf16" in t for t in convolutions)


def test_bfloat16_is_near_float32():
  shapes_of, _ = NETWORKS[models.SyncExpert]
  shapes = shapes_of(24)
  model = models.SyncExpert(width=1 / 8, image_size=24)
  variables = random_variables(model, shapes)
  inputs = [
    np.random.default_rng(i).random(s, np.float32) for i, s in enumerate(shapes)
  ]
  expected = model.apply(variables, *inputs)
  found = model.clone(dtype=jnp.bfloat16).apply(variables, *inputs)
  for a, b in zip(found, expected, strict=True):
    assert 1e-5 < np.abs(a - b).max() < 0.05


@pytest.mark.parametrize("network", [models.SyncExpert, models.Generator])
def test_remat_changes_no_name(network):
  shapes_of, _ = NETWORKS[network]
  plain, remat = (
    init_shapes(network(width=1 / 32, image_size=24, remat=r), shapes_of(24))
    for r in (False, True)
  )
  assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, remat)
