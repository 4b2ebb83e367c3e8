"""No false alarm: networks that learn well have no diagnosis, at the beginning, in the middle and at the end."""

import numpy as np
import pytest
from tests.examples.programs import load

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.cli import report, session
from chainrule.cli.options import DataOptions, NetworkOptions, ReadOptions, TrainingOptions
from chainrule.train.diagnosing import diagnose

SENTENCES = "the quick brown fox jumps over the lazy dog. she sells sea shells by the sea shore. " * 100


def check(make, data, epochs, *, loss, optimizer, validation=None, engine="reference", **options):
    """Fresh where `epochs` is 0, else after so many."""
    model, history = make(), None
    if epochs:
        history = cr.fit(
            model, data, loss=loss, optimizer=optimizer(), validation=validation, epochs=epochs, engine=engine,
            progress="silent", **options,
        )  # fmt: skip
    options.pop("stop", None)
    found = diagnose(
        model, data, loss=loss, optimizer=optimizer(), validation=validation, history=history, **options
    )  # fmt: skip
    assert list(found) == [], str(found)


def shipped(source, epochs, seed=0, engine="reference", **shape):
    """As `chainrule train SOURCE` does it."""
    prepared = session.prepare(session.read(source, ReadOptions()), DataOptions(seed=seed))
    network = session.choose_network(prepared, NetworkOptions(**shape))
    recipe = session.choose_recipe(prepared, network, TrainingOptions())
    data, validation = report.fit_data(prepared)
    check(
        lambda: network.build(seed), data, epochs, loss=recipe.loss_function(), optimizer=recipe.optimizer,
        validation=validation, batch_size=recipe.batch_size, seed=seed, engine=engine,
        stop=recipe.stop() if epochs else None,
    )  # fmt: skip


TABLES = ("iris", "wine", "breast_cancer", "diabetes")


@pytest.mark.parametrize(("source", "epochs"), [*[(name, 0) for name in (*TABLES, "digits")], ("iris", 2)])
def test_shipped_data_with_the_usual_network(source, epochs):
    shipped(source, epochs)


@pytest.mark.parametrize("source", ["wine", "diabetes"])
def test_at_the_end_of_training(source):
    shipped(source, 200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.thorough) for seed in range(2, 8)]])
@pytest.mark.parametrize("epochs", [0, 1, 5, 200])
@pytest.mark.parametrize("source", [*TABLES, "digits"])
def test_shipped_data_whatever_the_seed(source, epochs, seed):
    shipped(source, epochs, seed, engine="native")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, pytest.param(2, marks=pytest.mark.thorough), 6])
@pytest.mark.parametrize("network", ["cnn", "resnet"])
def test_networks_for_images(network, epochs):
    shipped("digits", epochs, network=network, channels="8,16", engine="native")


@pytest.mark.parametrize("epochs", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_the_autoencoder_of_the_examples(epochs):
    autoencoder = load("autoencoder_digits")
    train, test = autoencoder.images()
    rate = optim.cosine(5e-3, 47 * 4)
    check(
        autoencoder.network, train, epochs, loss=losses.mse, optimizer=lambda: optim.Adam(lr=rate), validation=test,
    )  # fmt: skip


def lenet(activation, pool):
    generator = cr.random.Generator(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2, generator=generator), activation(), pool(2),
        nn.Conv2d(6, 16, 3, generator=generator), activation(), nn.Flatten(),
        nn.Linear(64, 84, generator=generator), activation(), nn.Linear(84, 10, generator=generator),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("activation", "pool", "make", "epochs"),
    [
        (nn.Tanh, nn.AvgPool2d, lambda: optim.SGD(lr=0.05, momentum=0.9), 0),
        (nn.ReLU, nn.MaxPool2d, lambda: optim.SGD(lr=0.05, momentum=0.9), 0),  # it takes its time to begin
        pytest.param(nn.ReLU, nn.MaxPool2d, lambda: optim.Adam(lr=1e-3), 3, marks=pytest.mark.slow),
    ],
)
def test_lenet(activation, pool, make, epochs):
    digits = cr.data.load("digits")
    x = (digits.x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    check(
        lambda: lenet(activation, pool), (x[:1400], digits.y[:1400]), epochs, loss=losses.cross_entropy, optimizer=make,
        validation=(x[1400:], digits.y[1400:]), engine="native" if epochs else "reference",
    )  # fmt: skip


@pytest.mark.parametrize("epochs", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_the_network_of_train_from_python(epochs):
    module = load("train_from_python")
    train, validation, _ = module.split()
    check(
        module.network, train, epochs, loss=losses.cross_entropy, optimizer=lambda: optim.Adam(lr=3e-3),
        validation=validation,
    )  # fmt: skip


def seeded(make):
    def fresh():
        cr.random.manual_seed(0)
        return make()

    return fresh


@pytest.mark.parametrize("epochs", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_small_lstm(epochs):
    module, text = load("char_lstm"), cr.data.CharacterText.of(SENTENCES)
    check(
        seeded(lambda: module.CharacterLSTM(len(text.vocabulary), 32)), text.windows(32), epochs,
        loss=module.next_character, optimizer=lambda: optim.Adam(lr=4e-3), clip_norm=5.0,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 3])
def test_a_small_gpt(epochs, monkeypatch):
    module, text = load("char_gpt"), cr.data.CharacterText.of(SENTENCES)
    monkeypatch.setattr(module, "BLOCK", 16)
    loss = load("char_lstm").next_character
    check(
        seeded(lambda: module.GPT(len(text.vocabulary), layers=2, heads=2, width=32)), text.windows(16), epochs,
        loss=loss, optimizer=lambda: optim.AdamW(lr=2e-3),
    )  # fmt: skip
