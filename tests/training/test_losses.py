"""The losses compared with their formulas, and averaged over devices and parts of a batch."""

import functools
import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2f_jax.training import losses
from a2f_jax.training.losses import LOSSES, check_loss
from a2f_jax.training.spmd import parallelize
from a2f_jax.training.state import TrainState
from a2f_jax.training.step import make_train_step


def fourier_transform(image):
    """The discrete Fourier transform of `[height, width]` by its definition, the half of it that `rfft2` keeps."""
    height, width = image.shape
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
    return (rows @ image @ columns)[:, : width // 2 + 1]


def fourier_error(sr, hr):
    """The mean absolute error of all real and imaginary parts, of every image and channel."""
    parts = [
        (difference.real, difference.imag)
        for x, y in zip(sr, hr, strict=True)
        for difference in (fourier_transform(x[..., c]) - fourier_transform(y[..., c]) for c in range(x.shape[-1]))
    ]
    return np.mean(np.abs(parts))


FORMULAS = {
    "l1": lambda sr, hr: np.mean(np.abs(sr - hr)),
    "l2": lambda sr, hr: np.mean((sr - hr) ** 2),
    # 255 times the loss of LapSRN on 0..1, whose epsilon is 1e-3.
    "charbonnier": lambda sr, hr: 255 * np.mean(np.sqrt(((sr - hr) / 255) ** 2 + 1e-3**2)),
    # 255 times the loss of SAFMN on 0..1.
    "fft": lambda sr, hr: 255 * (np.mean(np.abs(sr - hr) / 255) + 0.05 * fourier_error(sr / 255, hr / 255)),
}


@pytest.fixture(scope="module")
def images():
    """SR and HR of eight images whose sides differ, so that exchanged axes would show."""
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 8, 6, 9, 3))


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_the_value_of_its_formula(name, channels, images):
    sr, hr = images[..., :channels]
    found = LOSSES[name](jnp.float32(sr), jnp.float32(hr))
    assert found.shape == ()
    assert float(found) == pytest.approx(FORMULAS[name](sr, hr), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_images_have_the_smallest_loss_and_a_finite_gradient(name, images):
    hr = jnp.float32(images[1])
    value, gradient = jax.value_and_grad(LOSSES[name])(hr, hr)
    assert float(value) == pytest.approx(FORMULAS[name](images[1], images[1]), rel=1e-4)  # the rounding of a mean
    assert np.isfinite(gradient).all()


class Gain(nn.Module):
    """Repeats every pixel, and multiplies by its only parameter."""

    scale: int = 2

    @nn.compact
    def __call__(self, lr):
        gain = self.param("gain", nn.initializers.ones, ())
        return gain * lr.astype(jnp.float32).repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize("name", LOSSES)
def test_devices_and_parts_of_a_batch_add_up_to_the_loss_and_the_gradient_of_the_whole(name):
    rng = np.random.default_rng(0)
    lr, hr = (rng.integers(0, 256, (16, side, side, 3), dtype=np.uint8) for side in (3, 6))
    enlarged, truth = np.float64(lr.repeat(2, 1).repeat(2, 2)), np.float64(hr)

    def loss(gain):
        return FORMULAS[name](gain * enlarged, truth)

    gain = 0.5123  # no pixel is exactly right, where the absolute error has no slope
    slope = (loss(gain + 1e-6) - loss(gain - 1e-6)) / 2e-6
    sgd = optax.sgd(1e-4)
    for mode, accumulate in [("shard_map", 1), ("shard_map", 2), ("pmap", 1), ("pmap", 2)]:
        spmd = parallelize(make_train_step(Gain(), sgd, loss=LOSSES[name], accumulate=accumulate), mode)
        params = {"gain": jnp.float32(gain)}
        state = spmd.put_state(TrainState(jnp.int32(0), params, None, sgd.init(params)))
        state, metrics = spmd.step(state, spmd.put_inputs({"lr": lr[None], "hr": hr[None]}))
        assert metrics["loss"][0] == pytest.approx(loss(gain), rel=1e-5), (mode, accumulate)
        moved = gain - float(spmd.get_state(state).params["gain"])
        assert moved == pytest.approx(1e-4 * slope, rel=1e-3), (mode, accumulate)  # float32 and finite differences


def test_the_check_of_a_loss_leaks_no_tracer():
    with jax.checking_leaks():
        check_loss(losses.l1, 8, 3)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda sr, hr: jnp.abs(sr - hr), r"<lambda> returns float32 \[1, 8, 8, 3\]"),
        (lambda sr, hr: jnp.argmax(sr), r"returns int32 \[\]"),
        (lambda sr, hr: {"l1": losses.l1(sr, hr)}, "returns dict"),
        (lambda sr, hr: None, "returns NoneType"),
        (lambda sr, hr: 1.0, "returns float"),
    ],
)
def test_a_function_that_does_not_return_a_scalar_is_refused(loss, message):
    with pytest.raises(TypeError, match=f"a loss must return a floating-point scalar, but .*{message}"):
        check_loss(loss, 8, 3)


def test_a_partial_function_is_named_after_its_arguments():
    names = [losses.name_of_loss(functools.partial(losses.l1, *args, weight=2)) for args in ((), (3,))]
    assert names == ["l1(weight=2)", "l1(3, weight=2)"]


class Features:
    """An extractor of features, with the `repr` that Python gives it."""


def test_the_name_of_a_partial_function_is_the_same_in_another_process_and_tells_arrays_apart():
    def name(**arguments):
        return losses.name_of_loss(functools.partial(losses.l1, **arguments))

    assert name(of=losses.l2, features=[Features()], inner=functools.partial(losses.l2, Features())) == (
        f"l1(features=[<{__name__}.Features object>], inner=l2(<{__name__}.Features object>), of=l2)"
    )
    assert len({name(net=nn.Conv(features, (3, 3))) for features in (3, 5)}) == 2  # which can be called as well
    weights = np.zeros(5000)
    changed = weights.copy()
    changed[2500] = 1
    assert len({name(weights=x) for x in (weights, changed, jnp.asarray(changed))}) == 3
    assert len(name(weights=weights)) < 300
    assert len({name(weights=np.array([x])) for x in (0.123456781, 0.123456784)}) == 2


def test_weights_of_a_network_are_named_by_a_digest_of_their_bytes():
    """The name of a perceptual loss with tens of millions of weights is made at once."""
    weights = {"conv": {"kernel": jnp.arange(4000.0).reshape(40, 100), "bias": np.zeros(2)}, "act": nn.relu}
    digest = hashlib.sha256(np.arange(4000, dtype=np.float32).tobytes()).hexdigest()[:16]
    shown = losses.name_of_loss(functools.partial(losses.l1, params=weights))
    assert f"'kernel': float32[40, 100] {digest}" in shown
    assert "'bias': array([0., 0.])" in shown


def test_a_partial_function_is_a_loss():
    check_loss(functools.partial(lambda sr, hr, weight: weight * losses.l1(sr, hr), weight=2), 8, 3)


@pytest.mark.parametrize("loss", ["fft", 3])
def test_what_is_not_a_function_is_refused_with_the_setting_that_names_a_loss(loss):
    with pytest.raises(TypeError, match=f"not {loss!r}: config.loss takes the name of a loss"):
        check_loss(loss, 8, 3)
