"""What `diagnose` takes, what it leaves as it was, and what it returns."""

import json

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, nn, optim, tree
from chainrule.errors import ConfigError, DataError
from chainrule.train.diagnosing import diagnose


def data(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(np.int64)


def network(seed=0):
    generator = cr.random.Generator(seed)
    return nn.Sequential(
        nn.Linear(4, 16, generator=generator), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2, generator=generator),
        nn.Linear(16, 2, generator=generator),
    )  # fmt: skip


def bits(*things):
    return [(leaf.path, np.asarray(leaf.value).tobytes()) for thing in things for leaf in tree.flatten(thing).leaves]


@pytest.mark.parametrize("make", [lambda: optim.Adam(lr=3e-3), lambda: optim.SGD(lr=50.0, momentum=0.9)])
@pytest.mark.parametrize("training", [True, False])
def test_everything_stays_as_it_was_to_the_bit(make, training):
    model, optimizer = network(), make()
    optimizer.init(model)
    cr.fit(
        model, data(), loss=losses.cross_entropy, optimizer=optimizer, epochs=1, progress="silent", engine="reference"
    )
    model.train(training)
    before, modes = bits(model, optimizer), [m.training for m in model.modules()]
    diagnose(model, data(), loss=losses.cross_entropy, optimizer=optimizer)
    assert bits(model, optimizer) == before
    assert [m.training for m in model.modules()] == modes


def test_a_fresh_optimiser_stays_fresh_and_training_goes_on_as_if_nothing_had_been():
    def trained(look):
        model, optimizer = network(), optim.Adam(lr=3e-3)
        if look:
            diagnose(model, data(), loss=losses.cross_entropy, optimizer=optimizer)
            assert optimizer.state is None
        cr.fit(model, data(), loss=losses.cross_entropy, optimizer=optimizer, epochs=2, progress="silent",
               engine="reference")  # fmt: skip
        return bits(model)

    assert trained(look=True) == trained(look=False)


def test_nothing_is_changed_when_it_fails_either():
    model, optimizer = network(), optim.Adam(lr=3e-3)
    before = bits(model)
    with pytest.raises(DataError):
        diagnose(
            model, (np.full((8, 4), np.nan), np.zeros(8, np.int64)), loss=losses.cross_entropy, optimizer=optimizer
        )
    with pytest.raises(ConfigError, match="steps is a whole number of at least 10"):
        diagnose(model, data(), loss=losses.cross_entropy, optimizer=optimizer, steps=2)
    assert bits(model) == before and optimizer.state is None


def test_the_same_seed_gives_the_same_report():
    x, y = data()
    x[:, 2] *= 1000
    first, second = (
        diagnose(network(), (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), seed=4) for _ in range(2)
    )
    assert first.to_dict() == second.to_dict()


def test_both_engines_find_the_same():
    x, y = data()
    x[:, 2] = 5000 + 10 * x[:, 2]
    kinds = [
        [
            d.kind
            for d in diagnose(network(), (x, y), loss=losses.cross_entropy, optimizer=optim.SGD(lr=0.1), engine=engine)
        ]
        for engine in ("reference", "native")
    ]
    assert kinds[0] == kinds[1] == ["unscaled-inputs"]


def test_a_report_is_json_and_text():
    x, y = data()
    x[:, 3] = 2.0
    report = diagnose(network(), (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), feature_names="abcd")
    told = json.loads(json.dumps(report.to_dict()))
    assert told["healthy"] is False
    assert told["diagnoses"][0].keys() == {"kind", "severity", "where", "message", "evidence", "remedy"}
    assert "feature 3 (d) is always 2" in str(report)
    assert told["facts"]["trials"][0]["factor"] == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": optim.Adam(lr=optim.cosine(3e-3, T_max=100))},
        {"optimizer": optim.SGD(lr=0.1), "class_weight": "balanced", "clip_norm": 1.0},
        {"optimizer": optim.Lion(lr=3e-4)},
    ],
)
def test_without_a_rate_with_a_schedule_and_with_weights(options):
    assert list(diagnose(network(), data(), loss=losses.cross_entropy, **options)) == []


def test_l_bfgs_and_several_inputs_and_no_targets():
    class Sum(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, a, b):
            return self.a(a) + self.b(b)

    x, _ = data()
    y = (x[:, :1] + x).astype(np.float32)
    cr.random.manual_seed(0)
    assert list(diagnose(Sum(), ((x, x * 0.5), y), loss=losses.mse, optimizer=optim.Adam(lr=1e-2))) == []
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
    optimizer = optim.LBFGS(line_search_fn="strong_wolfe")
    assert list(diagnose(model, x, loss=losses.mse, optimizer=optimizer, batch_size=120)) == []
    assert optimizer.binding.model is None


def overfitted():
    return [
        {"epoch": e, "loss": 2 / (e + 1), "validation_loss": 1.0 + 0.05 * (e - 10) if e > 10 else 2 - 0.1 * e}
        for e in range(1, 31)
    ]


def test_the_history_of_a_list_a_result_and_a_run(tmp_path):
    x, y = data()

    def kinds(history):
        options = {"loss": losses.cross_entropy, "optimizer": optim.Adam(lr=3e-3)}
        return [(d.kind, d.severity) for d in diagnose(network(), (x, y), history=history, **options)]

    assert kinds(overfitted()) == [("overfitting", "warning")]
    run = cr.fit(
        network(), (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(lr=3e-3), epochs=2, validation=(x, y),
        progress="silent", engine="reference", run_dir=tmp_path / "run",
    )  # fmt: skip
    assert kinds(run) == kinds(run.history) == kinds(run.run) == kinds(str(run.run)) == []
    with pytest.raises(ConfigError, match="history="):
        kinds(3)
