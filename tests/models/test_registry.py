"""Sizes of the compared networks against formulas written out by hand and against the slides; they can be trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from a2f_jax.models.a2f import A2F
from a2f_jax.models.counts import count
from a2f_jax.models.registry import PEERS, params_from_source, recognize

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These networks see few pixels: compiling them well takes longer than running them badly."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def conv(k, a, b, bias=True):
    """Parameters of a k×k convolution."""
    return k * k * a * b + bias * b


def awsrn(n, units, blocks):
    def normalized(k, a, b):
        return conv(k, a, b) + b  # the gain

    def count(scale):
        unit = normalized(3, n, 128) + normalized(3, 128, n) + 2
        block = units * unit + normalized(3, units * n, n) + 2
        tail = sum(normalized(k, n, 3 * scale**2) + 1 for k in (3, 5, 7, 9))
        return normalized(3, 3, n) + blocks * block + tail + normalized(3, 3, 3 * scale**2)

    return count


def upsampler(n, scale):
    return {2: conv(3, n, 4 * n), 3: conv(3, n, 9 * n), 4: 2 * conv(3, n, 4 * n)}[scale]


def srfbn(m, groups):
    def count(scale):
        k = {2: 6, 3: 7, 4: 8}[scale]
        mixes = sum(conv(1, g * m, m) + 1 for g in range(2, groups + 1))
        block = conv(1, 2 * m, m) + 1 + groups * 2 * (conv(k, m, m) + 1) + 2 * mixes + conv(1, groups * m, m) + 1
        head = conv(3, 3, 4 * m) + conv(1, 4 * m, m) + 2
        return head + block + conv(k, m, m) + 1 + conv(3, m, 3)

    return count


def dbpn(scale):
    k = {2: 6, 4: 8}[scale]
    reductions = sum(conv(1, 64 * j, 64) + 1 for j in range(2, 7)) * 2
    return conv(3, 3, 256) + 1 + conv(1, 256, 64) + 1 + 13 * 3 * (conv(k, 64, 64) + 1) + reductions + conv(3, 448, 3)


def msrn(scale):
    block = conv(3, 64, 64) + conv(5, 64, 64) + conv(3, 128, 128) + conv(5, 128, 128) + conv(1, 256, 64)
    return conv(3, 3, 64) + 8 * block + conv(1, 576, 64) + conv(3, 64, 64) + upsampler(64, scale) + conv(3, 64, 3)


def rcan(scale):
    block = 2 * conv(3, 64, 64) + conv(1, 64, 4) + conv(1, 4, 64)
    body = 10 * (20 * block + conv(3, 64, 64)) + conv(3, 64, 64)
    return conv(3, 3, 64) + body + upsampler(64, scale) + conv(3, 64, 3)


def memnet(_):
    weights = 9 * 64 + 6 * 2 * 9 * 64 * 64 + sum(64 * (6 + m) * 64 for m in range(1, 7)) + 9 * 64
    norms = 1 + 6 * 12 * 64 + sum(64 * (6 + m) for m in range(1, 7)) + 64
    return weights + 2 * norms + 6


def srdensenet(_):
    blocks = sum(conv(3, 128 * (i + 1), 16) + sum(conv(3, 16 * j, 16) for j in range(1, 8)) for i in range(8))
    return conv(3, 1, 128) + blocks + 1152 * 256 + 2 * 4 * 256 * 256 + 9 * 256


def selnet(scale):
    unit = conv(3, 64, 64) + conv(1, 64, 64)
    return conv(3, 3, 64) + conv(1, 64, 64) + 20 * unit + conv(3, 64, 64 * scale**2) + conv(3, 64, 3)


def carn(scale):
    cascade = conv(1, 128, 64) + conv(1, 192, 64) + conv(1, 256, 64)
    body = 3 * (3 * 2 * conv(3, 64, 64) + cascade) + cascade
    return conv(3, 3, 64) + body + upsampler(64, scale) + conv(3, 64, 3)


# Parameters by hand; what the slides print for ×2 and ×4, in thousands, and in multi-adds of 1e9.
FORMULAS = {
    "srcnn": lambda _: conv(9, 1, 64) + conv(5, 64, 32) + conv(5, 32, 1),
    "vdsr": lambda _: conv(3, 1, 64) + 18 * conv(3, 64, 64) + conv(3, 64, 1),
    "drrn": lambda _: 2 * 9 * 128 + 2 * 9 * 128 * 128,
    "drcn": lambda _: conv(3, 1, 256) + 3 * conv(3, 256, 256) + conv(3, 256, 1) + 16,
    "memnet": memnet,
    "srdensenet": srdensenet,
    "selnet": selnet,
    "srmdnf": lambda s: 15 + conv(3, 18, 128) + 10 * (conv(3, 128, 128) + 256) + conv(3, 128, 3 * s * s),
    "carn": carn,
    "msrn": msrn,
    "rcan": rcan,
    "edsr": lambda s: conv(3, 3, 256) + 65 * conv(3, 256, 256) + upsampler(256, s) + conv(3, 256, 3),
    "d-dbpn": dbpn,
    "awsrn": awsrn(32, 4, 4),
    "awsrn-m": awsrn(32, 4, 3),
    "awsrn-s": awsrn(32, 4, 1),
    "awsrn-sd": awsrn(16, 8, 1),
    "srfbn": srfbn(64, 6),
    "srfbn-s": srfbn(32, 3),
}

CASES = [(name, scale) for name in FORMULAS for scale in PEERS[name].scales if (name, scale) != ("d-dbpn", 3)]


def shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_parameters_are_those_of_the_layers(name, scale):
    assert sum(x.size for x in jax.tree.leaves(shapes(PEERS[name].make(scale)))) == FORMULAS[name](scale)


# Parameters in thousands and multi-adds in 1e9, as the slides print them; where ours differ by more than a rounding,
# the reason. Multi-adds of transposed convolutions are counted at the size of their input.
SLIDES = [
    ("srcnn", 2, 57, 52.7),
    ("vdsr", 2, 665, 612.6),
    ("drrn", 2, 297, 6797),
    ("drcn", 4, 1774, 17974),  # the slides print 1797.4G, a tenth
    ("awsrn", 2, 1397, 320.5),
    ("awsrn", 4, 1587, 91.1),
    ("awsrn-m", 2, 1063, 244.1),
    ("awsrn-m", 4, 1254, 72.0),
    ("awsrn-s", 2, 397, 91.2),
    ("awsrn-s", 4, 588, 33.7),  # the slides print 37.7G
    ("awsrn-sd", 2, 348, 79.6),
    ("awsrn-sd", 4, 444, 25.4),
    ("falsr-a", 2, 1021, 234.7),
    ("falsr-b", 2, 326, 74.7),
    ("rcan", 4, 15590, 919.9),
    ("edsr", 4, 43090, 2896.3),
    ("d-dbpn", 4, 10430, 685.7),
    ("msrn", 4, 6078, 376.8),  # the slides print 349.8G, as if the last layer worked at LR size
    ("srmdnf", 2, 1513, 347.7),
    ("srmdnf", 4, 1555, 89.3),
    ("selnet", 2, 974, 225.7),
    ("selnet", 4, 1417, 83.1),
    ("idn", 4, 552, None),
]


@pytest.mark.parametrize(("name", "scale", "thousands", "billions"), SLIDES)
def test_sizes_are_those_of_the_slides(name, scale, thousands, billions):
    network = PEERS[name].make(scale)
    parameters = sum(x.size for x in jax.tree.leaves(shapes(network)))
    assert parameters / 1e3 == pytest.approx(thousands, rel=0.005)
    if billions:
        assert count(network).multiply_adds / 1e9 == pytest.approx(billions, rel=0.007)


# The others are of the same layers, and take long to compile.
@pytest.mark.parametrize("name", ["fsrcnn", "awsrn-sd", "srfbn-s", "msrn", "selnet", "srmdnf"])
def test_networks_can_be_trained(name):
    """A loss that falls over a few steps, with finite gradients everywhere."""
    scale = PEERS[name].scales[0]
    check_training(PEERS[name].make(scale), scale)


@pytest.mark.parametrize("name", ["edsr", "rcan"])
def test_deep_networks_can_be_trained_when_shallow(name):
    options = {"edsr": {"blocks": 2, "features": 32}, "rcan": {"groups": 2, "blocks": 2}}[name]
    check_training(PEERS[name].make(2).clone(**options), 2)


def check_training(network, scale):
    rng = np.random.default_rng(0)
    side = getattr(network, "smallest", 6)
    lr = jnp.asarray(rng.integers(0, 256, (1, side, side, 3)), jnp.float32)
    hr = lr.repeat(scale, 1).repeat(scale, 2)

    def loss_fn(params):
        return jnp.mean(jnp.abs(network.apply({"params": params}, lr) - hr))

    params = jax.tree.map(
        lambda x: (
            jnp.asarray(rng.uniform(-1, 1, x.shape) * max(np.prod(x.shape[:-1]), 1) ** -0.5, jnp.float32)
            if len(x.shape) == 4
            else jnp.full(x.shape, 0.2, jnp.float32)
        ),
        shapes(network),
    )
    optimizer = optax.adam(1e-3)
    state, losses = optimizer.init(params), []

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss, optax.tree.norm(grads)

    for _ in range(4):
        params, state, loss, norm = step(params, state)
        losses.append(float(loss))
        assert np.isfinite(norm)
        assert norm > 0
    assert losses[-1] < losses[0]


def test_unknown_tensors_are_refused():
    assert recognize({"encoder.weight": np.zeros((3, 3))}) is None
    with pytest.raises(ValueError, match="not those of a known network"):
        params_from_source({"encoder.weight": np.zeros((3, 3))})


@pytest.mark.parametrize("name", PEERS)
def test_every_network_enlarges_by_its_scale(name):
    scale = PEERS[name].scales[-1]
    network = PEERS[name].make(scale)
    lr = jax.ShapeDtypeStruct((2, 17, 15, 3), jnp.float32)
    sr = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x)[0], lr)
    assert sr.shape == (2, 17 * scale, 15 * scale, 3)
    assert sr.dtype == jnp.float32


def test_published_tensors_of_which_one_is_missing_or_wrong_are_refused():
    srcnn = {
        "weights_conv1": np.zeros((81, 64)),
        "weights_conv2": np.zeros((64, 25, 32)),
        "weights_conv3": np.zeros((32, 25)),
        **{f"biases_conv{i}": np.zeros(n) for i, n in ((1, 64), (2, 32), (3, 1))},
    }
    assert params_from_source(srcnn, 2)[0] == "srcnn"
    for name in [*srcnn][1:]:
        without = {key: value for key, value in srcnn.items() if key != name}
        with pytest.raises(ValueError, match=f"not those of SRCNN: {name} is missing"):
            params_from_source(without, 2)
    with pytest.raises(ValueError, match="not those of SRCNN"):
        params_from_source({**srcnn, "weights_conv2": np.zeros((64, 24, 32))}, 2)


@pytest.mark.parametrize("name", ["a2f", *PEERS])
def test_batches_may_be_sharded_over_a_mesh_of_explicit_axes(name):
    """As `jax.make_mesh` makes them: the shapes alone decide whether JAX can derive the shardings."""
    network = A2F(scale=2, features=8, blocks=2) if name == "a2f" else PEERS[name].make(PEERS[name].scales[0])
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    lr = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32, sharding=sharding)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with jax.set_mesh(mesh):
        sr = jax.eval_shape(network.apply, variables, lr)
    assert sr.sharding.spec[0] == "batch"


@pytest.mark.parametrize("name", ["a2f", *PEERS])
def test_parameters_have_single_precision_also_where_the_default_is_double(name):
    network = A2F(scale=2, features=8, blocks=2) if name == "a2f" else PEERS[name].make(PEERS[name].scales[0])
    with jax.enable_x64(True):
        variables = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
        sr = jax.eval_shape(network.apply, variables, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert sr.dtype == jnp.float32
