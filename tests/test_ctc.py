"""CTC: against all paths written out, derivatives, compiled with lengths as data, mistakes. (PyTorch: tests/oracle.)"""

import itertools

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, losses, optim

pytestmark = pytest.mark.filterwarnings("ignore:There is no native code")


def drawn(*shape, seed=0):
    return cr.tensor(np.random.default_rng(seed).normal(size=shape))


def spelled(path, blank):
    """What a path spells: repeated labels once, without blanks."""
    return [c for c, before in zip(path, [None, *path[:-1]], strict=True) if c not in (before, blank)]


def by_enumeration(log_probs, target, blank):
    steps, classes = log_probs.shape
    paths = [p for p in itertools.product(range(classes), repeat=steps) if spelled(p, blank) == list(target)]
    with np.errstate(divide="ignore"):
        return -np.log(sum(np.exp(sum(log_probs[t, c] for t, c in enumerate(p))) for p in paths) + 0.0)


@pytest.mark.parametrize("target", [[], [1], [1, 1], [2, 1], [2, 2, 1], [1, 1, 1]])
@pytest.mark.parametrize("blank", [0, 2])
def test_all_paths_that_spell_the_target(target, blank):
    target = [0 if c == blank else c for c in target]
    log_probs = cr.log_softmax(drawn(5, 3))
    found = losses.ctc(log_probs, cr.tensor(np.array(target, int)), 5, len(target), blank, "none")
    np.testing.assert_allclose(float(found), by_enumeration(np.asarray(log_probs), target, blank), rtol=1e-12)


def test_derivatives_by_the_log_probabilities_themselves():
    targets = cr.tensor([[1, 1, 2], [2, 3, 0]])
    f = lambda x: losses.ctc(x, targets, [6, 5], [3, 2], reduction="none")
    cr.check_gradients(f, drawn(6, 2, 4), order=2)


def test_steps_behind_the_end_and_classes_of_probability_zero():
    x = np.array(cr.log_softmax(drawn(6, 2, 4)))
    x[4:, 1] = np.nan_to_num(-np.inf)
    x[:, :, 3] = -np.inf
    f = lambda x: losses.ctc(x, cr.tensor([[1, 2], [2, 1]]), [6, 4], [2, 2], reduction="sum")
    value, gradient = cr.value_and_grad(f)(cr.tensor(x))
    assert np.isfinite(float(value))
    assert np.isfinite(np.asarray(gradient)).all()
    assert not np.asarray(gradient)[4:, 1].any()
    assert np.isnan(float(f(cr.tensor(np.where(np.arange(4) == 1, np.nan, x)))))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_compiled_with_lengths_as_data(engine, together):
    logits = drawn(6, 2, 4)
    f = lambda x, targets, n, m: losses.ctc(cr.log_softmax(x), targets, n, m)
    fast = cr.compile(cr.value_and_grad(f), engine=engine)
    for n, m, row in (([6, 5], [3, 2], [2, 2, 1, 3, 1]), ([4, 6], [1, 4], [3, 1, 2, 2, 1])):
        padded = np.zeros((2, 4), int)
        for b, labels in enumerate((row[: m[0]], row[m[0] :])):
            padded[b, : m[b]] = labels
        targets = cr.tensor(np.array(row)) if together else cr.tensor(padded)
        arguments = logits, targets, cr.tensor(n), cr.tensor(m)
        for a, b in zip(fast(*arguments), cr.value_and_grad(f)(*arguments), strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-12)
    assert fast.compilations == 1


def test_halves_are_computed_in_float32():
    x = cr.log_softmax(drawn(6, 1, 4))
    loss = lambda x: losses.ctc(x, cr.tensor([[1, 2]]), [6], [2])
    assert loss(x.astype("float16")).dtype == cr.float16
    np.testing.assert_allclose(float(loss(x.astype("float16"))), float(loss(x)), rtol=2e-3)


def test_learning_an_alignment():
    """The logits themselves are trained until the most likely path spells the target."""
    from chainrule import nn

    class Logits(nn.Module):
        def __init__(self):
            self.x = nn.Parameter(np.zeros((8, 1, 4)))

    model, optimizer = Logits(), optim.Adam(lr=0.3)
    for _ in range(40):
        f = lambda m: losses.ctc(cr.log_softmax(m.x), cr.tensor([[1, 3, 3]]), [8], [3])
        loss, grads = cr.value_and_grad(f)(model)
        optimizer.update(model, grads)
    assert float(loss) < 0.1
    assert spelled(np.asarray(cr.argmax(model.x, axis=2))[:, 0].tolist(), 0) == [1, 3, 3]


X = cr.zeros((4, 2, 3))
MISTAKES = [
    (lambda: losses.ctc(cr.zeros(3), cr.tensor([1]), [1], [1]), errors.ShapeError, "log_probs"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4, 4], [1, 1], blank=3), errors.ConfigError, "blank=3"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4, 5], [1, 1]), errors.DataError, "input_lengths"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4, 4], [1, 2]), errors.DataError, "target_lengths"),
    (lambda: losses.ctc(X, cr.tensor([[1], [3]]), [4, 4], [1, 1]), errors.DataError, "between 0 and 2"),
    (lambda: losses.ctc(X, cr.tensor([[1.0], [2.0]]), [4, 4], [1, 1]), errors.DTypeError, "class indices"),
    (lambda: losses.ctc(X, cr.tensor([1, 2, 1]), [4, 4], [1, 1]), errors.ShapeError, "sum to another"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2], [1]]), [4, 4], [1, 1]), errors.ShapeError, "targets"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4.0, 4.0], [1, 1]), errors.DTypeError, "whole"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4], [1, 1]), errors.ShapeError, "input_lengths"),
    (lambda: losses.ctc(X, cr.tensor([[1], [2]]), [4, 4], [1, 1], reduction="max"), errors.ConfigError, "reduction"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()
