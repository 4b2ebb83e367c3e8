"""Layers in front of networks for images: pixels as numbers, and images changed at random in training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError, ShapeError

draw = np.random.default_rng(0)


def pictures(*shape):
    """Bytes from 1 on, so that the zeros that come in at an edge are seen."""
    return cr.tensor(draw.integers(1, 256, shape).astype(np.uint8))


@pytest.mark.parametrize(
    ("shape", "last", "expected"),
    [
        ((5, 4, 6), False, (5, 1, 4, 6)),
        ((5, 3, 4, 6), False, (5, 3, 4, 6)),
        ((5, 4, 6, 3), True, (5, 3, 4, 6)),
    ],
)
def test_pixels_are_divided_and_their_channels_stand_in_front(shape, last, expected):
    x = pictures(*shape)
    y = nn.Pixels(51.0, shift=2.0, channels_last=last)(x)
    assert y.shape == expected and y.dtype == cr.float32
    values = np.asarray(x).transpose(0, 3, 1, 2) if last else np.asarray(x).reshape(expected)
    np.testing.assert_allclose(y, (values - 2.0) / 51.0, rtol=1e-6)


def test_pixels_of_floating_point_keep_their_dtype():
    x = cr.tensor(np.full((1, 2, 2), 3.0))
    assert nn.Pixels()(x).dtype == cr.float64
    np.testing.assert_array_equal(nn.Pixels(scale=1)(x)[:, 0], x)


def test_pixels_explain_themselves():
    with pytest.raises(ConfigError, match="positive scale"):
        nn.Pixels(0)
    with pytest.raises(ShapeError, match=r"images \(rows, height, width\)"):
        nn.Pixels()(cr.ones((3, 4)))


def shifts_of(before, after, most):
    """By how much each image was moved (down, right), as often as that fits."""
    around = np.pad(np.asarray(before), [(0, 0)] * (before.ndim - 2) + [(most, most)] * 2)
    height, width = before.shape[-2:]
    places = [(a, b) for a in range(2 * most + 1) for b in range(2 * most + 1)]
    return [
        [(most - a, most - b) for a, b in places if (old[..., a : a + height, b : b + width] == new).all()]
        for old, new in zip(around, np.asarray(after), strict=True)
    ]


@given(st.integers(1, 3), st.sampled_from([(5, 4), (2, 5, 4), (1, 3, 3, 6)]), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_each_image_is_shifted_by_its_own_places_with_zeros_behind(most, shape, seed):
    x = pictures(6, *shape)
    found = shifts_of(x, nn.RandomShift(most, cr.random.Generator(seed))(x), most)
    assert all(len(places) >= 1 for places in found)


def test_all_shifts_are_alike_likely():
    x = pictures(2000, 3, 3)
    found = [places[0] for places in shifts_of(x, nn.RandomShift(1, cr.random.Generator(0))(x), 1)]
    counts = [found.count((down, right)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert sum(counts) == 2000
    expected = 2000 / 9
    assert sum((count - expected) ** 2 / expected for count in counts) < 26.1  # chi-squared, 8 degrees, 0.1 %


def test_images_are_mirrored_with_their_probability():
    x = pictures(2000, 2, 1, 3)
    y = np.asarray(nn.RandomHorizontalFlip(0.3, cr.random.Generator(0))(x))
    mirrored = (y == np.asarray(x)[..., ::-1]).all(axis=(1, 2, 3))
    same = (y == np.asarray(x)).all(axis=(1, 2, 3))
    assert (mirrored | same).all() and 0.26 < mirrored.mean() < 0.34


@pytest.mark.parametrize("layer", [nn.RandomShift(2), nn.RandomHorizontalFlip()], ids=["shift", "flip"])
def test_random_layers_rest_in_evaluation_and_move_on_in_training(layer):
    x = pictures(20, 1, 6, 6)
    count = int(layer.generator.count)
    assert layer.eval()(x) is x and int(layer.generator.count) == count
    one, two = layer.train()(x), layer(x)
    assert (one != two).any() and int(layer.generator.count) == count + 2


def test_random_layers_explain_themselves():
    with pytest.raises(ConfigError, match="RandomShift"):
        nn.RandomShift(-1)
    with pytest.raises(ConfigError, match="probability"):
        nn.RandomHorizontalFlip(1.5)
    for layer in (nn.RandomShift(1), nn.RandomHorizontalFlip()):
        with pytest.raises(ShapeError, match="images"):
            layer(cr.ones((3, 4)))


def test_gradients_go_where_the_pixels_came_from():
    x = cr.tensor(draw.normal(size=(3, 1, 3, 3)))

    def f(x):
        generator = cr.random.Generator(5)
        return nn.RandomHorizontalFlip(0.5, generator)(nn.RandomShift(1, generator)(x)) ** 2

    cr.check_gradients(f, x, order=2)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_compiled_and_eager_draw_alike(engine):
    def network():
        return nn.Sequential(
            nn.Pixels(), nn.RandomShift(2, cr.random.Generator(1)), nn.RandomHorizontalFlip(0.5, cr.random.Generator(2))
        )

    x, eager, compiled = pictures(7, 5, 6), network(), network()
    run = cr.compile(lambda model, x: model(x), engine=engine)
    for _ in range(3):
        np.testing.assert_allclose(run(compiled, x), eager(x), rtol=1e-6)


def test_training_on_changed_images_repeats_and_resumes_to_the_bit(tmp_path):
    x, y = draw.integers(0, 256, (40, 6, 6), np.uint8), np.arange(40) % 2

    def parts(callbacks=()):
        generator = cr.random.Generator(0)
        shift, flip = nn.RandomShift(1, generator.split()), nn.RandomHorizontalFlip(generator=generator.split())
        model = nn.Sequential(nn.Pixels(), shift, flip, nn.Flatten(), nn.Linear(36, 2, generator=generator))
        return dict(
            model=model, data=(x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=0.01), progress="silent",
            callbacks=list(callbacks),
        )  # fmt: skip

    class Stumble(cr.train.Callback):
        def on_step(self, training, loss):
            if training.position.step == 7:
                raise OSError("pulled the plug")

    class Calm(cr.train.Callback):
        pass

    settings = dict(epochs=3, batch_size=12, seed=3)
    whole = cr.fit(**parts(), **settings).model.state_dict()
    again = cr.fit(**parts(), **settings, threads=1).model.state_dict()
    with pytest.raises(OSError, match="plug"):
        cr.fit(**parts([Stumble()]), **settings, run_dir=tmp_path / "run", checkpoint_every="5 steps")
    resumed = cr.resume(tmp_path / "run", **parts([Calm()])).model.state_dict()
    for name, weight in whole.items():
        np.testing.assert_array_equal(weight, again[name])
        np.testing.assert_array_equal(weight, resumed[name])


def test_a_shortcut_makes_residuals_that_change_the_shape():
    inner, shortcut = nn.Linear(4, 2), nn.Linear(4, 2, bias=False)
    x = cr.tensor(draw.normal(size=(3, 4)).astype(np.float32))
    both = nn.Residual(inner, shortcut=shortcut)
    np.testing.assert_array_equal(both(x), shortcut(x) + inner(x))
    assert set(both.state_dict()) == {"inner.weight", "inner.bias", "shortcut.weight"}
    with pytest.raises(ShapeError, match="what the shortcut makes of its input"):
        nn.Residual(inner, shortcut=nn.Linear(4, 3))(x)
