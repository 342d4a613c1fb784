"""Loss terms: arrays in, scalars out, one function for each term.

No networks, no weights, no config: the stage files put terms together.
Values and gradients follow PyTorch's (its clamps included).
"""

import jax
import jax.numpy as jnp
import optax


def cosine_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine of unit vectors [B, D] and [B, D], as probabilities [B] in [0, 1].

  The expert's embeddings are non-negative and of unit length, so only rounding
  can leave [0, 1]; PyTorch's loss stops with an error there, this clips.
  """
  return jnp.clip(jnp.sum(a * b, axis=-1), 0.0, 1.0)


@jax.custom_jvp
def binary_cross_entropy(p: jax.Array, y: jax.Array) -> jax.Array:
  """-(y log p + (1 - y) log(1 - p)) elementwise, as torch.nn.BCELoss has it.

  Each logarithm is clamped at -100, and the gradient (p - y) / (p (1 - p)) has
  a denominator of at least 1e-12, so both stay finite at p = 0 and p = 1.
  """
  log_p = jnp.maximum(jnp.log(p), -100.0)
  log_1mp = jnp.maximum(jnp.log1p(-p), -100.0)
  return -(y * log_p + (1.0 - y) * log_1mp)


@binary_cross_entropy.defjvp
def _binary_cross_entropy_jvp(primals, tangents):
  p, y = primals
  dp, _ = tangents  # Labels are never differentiated.
  slope = (p - y) / jnp.maximum(p * (1.0 - p), 1e-12)
  return binary_cross_entropy(p, y), slope * dp


def cosine_bce(
  audio_embedding: jax.Array, face_embedding: jax.Array, in_sync: jax.Array
) -> jax.Array:
  """Stage-1 loss: mean cross-entropy of the cosine itself, no sigmoid.

  Original: color_syncnet_train.py, cosine_loss; paper section 3.1.

  Args:
    audio_embedding, face_embedding: [B, D], unit length, non-negative.
    in_sync: [B], 1 where speech and faces belong together, else 0.
  """
  p = cosine_similarity(audio_embedding, face_embedding)
  return jnp.mean(binary_cross_entropy(p, in_sync))


def sync_losses(
  audio_embedding: jax.Array, face_embedding: jax.Array
) -> jax.Array:
  """Stage-2 sync loss of each window, [B]: every one is labelled in sync."""
  p = cosine_similarity(audio_embedding, face_embedding)
  return binary_cross_entropy(p, jnp.ones_like(p))


def _similarities(audio, face, logit_scale) -> jax.Array:
  """Scaled cosines of every audio with every face: [..., W, D] to [..., W, W].

  The scale is capped at 100, as CLIP does (Radford et al. 2021, section 2.5).
  """
  scale = jnp.exp(jnp.minimum(logit_scale, jnp.log(100.0)))
  # Not in one bfloat16 pass, as TPUs would: the scale magnifies its rounding.
  cosines = jnp.einsum(
    "...wd,...vd->...wv", audio, face, precision=jax.lax.Precision.HIGHEST
  )
  return scale * cosines


def contrastive_loss(
  audio_embedding: jax.Array,
  face_embedding: jax.Array,
  logit_scale: jax.Array,
  windows_per_clip: int,
) -> tuple[jax.Array, jax.Array]:
  """Every window's speech must find its own faces in its clip, and vice versa.

  Args:
    audio_embedding, face_embedding: [B, D], unit length, in sync; windows of
      one clip follow each other.
    logit_scale: logarithm of the inverse temperature.
    windows_per_clip: W.

  Returns:
    (symmetric cross-entropy over the W windows of each clip, how often speech
    finds its faces); chance is log W and 1 / W.
  """
  shape = (-1, windows_per_clip, audio_embedding.shape[-1])
  logits = _similarities(
    audio_embedding.reshape(shape), face_embedding.reshape(shape), logit_scale
  )
  own = jnp.arange(windows_per_clip)
  labels = jnp.broadcast_to(own, logits.shape[:-1])
  loss = optax.softmax_cross_entropy_with_integer_labels
  both = loss(logits, labels) + loss(jnp.swapaxes(logits, -1, -2), labels)
  correct = jnp.argmax(logits, axis=-1) == labels
  return jnp.mean(both) / 2, jnp.mean(correct.astype(both.dtype))


def contrastive_sync_losses(
  audio_embedding: jax.Array, face_embedding: jax.Array, logit_scale: jax.Array
) -> jax.Array:
  """Stage-2 sync loss of each window, [B], by a contrastive expert.

  Every window's faces must find their own speech among all that is given;
  chance is log N.

  Args:
    audio_embedding: [N, D], unit length; the first B are the faces' own.
    face_embedding: [B, D], unit length.
    logit_scale: logarithm of the inverse temperature.
  """
  logits = _similarities(face_embedding, audio_embedding, logit_scale)
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.arange(len(logits))
  )


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of values [B] where mask [B] is 1; 0 where it is 0 everywhere."""
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def l1_loss(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Mean absolute difference over whole frames, in units of [0, 1]."""
  return jnp.mean(jnp.abs(fake - real))


def generator_adversarial_loss(
  fake_logits: jax.Array, form: str = "non_saturating"
) -> jax.Array:
  """The generator's side of the game, a mean over frames.

  Args:
    fake_logits: [N, 1], the discriminator's of generated frames.
    form: "non_saturating", -log D(fake), the code's (hq_wav2lip_train.py), or
      "saturating", log(1 - D(fake)), the paper's (section 3.4), whose gradient
      vanishes where the discriminator is sure.
  """
  if form == "saturating":
    return -jnp.mean(
      optax.sigmoid_binary_cross_entropy(
        fake_logits, jnp.zeros_like(fake_logits)
      )
    )
  if form != "non_saturating":
    raise ValueError(
      f"adversarial_form is {form!r}, expected 'non_saturating' or 'saturating'"
    )
  return jnp.mean(
    optax.sigmoid_binary_cross_entropy(fake_logits, jnp.ones_like(fake_logits))
  )


def discriminator_loss(
  real_logits: jax.Array, fake_logits: jax.Array
) -> jax.Array:
  """Mean of -log D(real) plus mean of -log(1 - D(fake)); summed, not halved."""
  real = optax.sigmoid_binary_cross_entropy(
    real_logits, jnp.ones_like(real_logits)
  )
  fake = optax.sigmoid_binary_cross_entropy(
    fake_logits, jnp.zeros_like(fake_logits)
  )
  return jnp.mean(real) + jnp.mean(fake)
