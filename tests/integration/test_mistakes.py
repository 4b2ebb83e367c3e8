"""The mistakes that beginners make: each gets one message that names the thing, what came, and what to try."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors, losses, nn, optim

X, Y = cr.tensor(np.ones((8, 3), np.float32)), cr.tensor(np.zeros(8, np.int64))
V = cr.tensor([1.0, 2.0, 3.0])


class Counts(nn.Module):
    def __init__(self):
        self.layer, self.calls = nn.Linear(3, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class Remembers(Counts):
    def forward(self, x):
        self.last = self.layer(x)
        return self.last


class Plain(nn.Module):
    def __init__(self):
        self.weight = cr.tensor([1.0, 2.0, 3.0])

    def forward(self, x):
        return x * self.weight


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def assign():
    V[0] = 1.0


def unprepared():
    models, optimizers = [model(), model()], [optim.Adam(lr=0.1), optim.Adam(lr=0.1)]

    def step(models, optimizers):
        for m, o in zip(models, optimizers, strict=True):
            o.update(m, cr.grad(lambda m: cr.sum(m(X)))(m))

    cr.compile(step)(models, optimizers)


def compiled_then_backward():
    cr.sum(cr.compile(model())(X)).backward()


MISTAKES = {
    "gradient of a vector": (lambda: cr.grad(lambda x: x * x)(V), ["one floating-point number", "cr.sum"]),
    "float() in the loss": (lambda: cr.grad(lambda x: float(cr.sum(x)))(V), ["returned 6.0", "float()"]),
    "gradient by integers": (lambda: cr.grad(lambda x: cr.sum(x))(cr.tensor([1, 2])), ["int64", "floating-point"]),
    "gradient by a list": (lambda: cr.grad(lambda p: cr.sum(cr.tensor(p)))([1.0, 2.0]), [r"\[1.0, 2.0\]", "tensors"]),
    "a weight that is no Parameter": (lambda: optim.SGD(Plain(), lr=0.1), ["Plain has no trainable tensor"]),
    "argnums too large": (lambda: cr.grad(lambda a: cr.sum(a), argnums=2)(V), ["argnums", "1 positional"]),
    "argnums twice": (lambda: cr.grad(lambda a, b: cr.sum(a), argnums=(0, -2))(V, V), ["each once"]),
    "has_aux without aux": (lambda: cr.value_and_grad(cr.sum, has_aux=True)(V), ["has_aux", "aux"]),
    "a tensor of tensors": (lambda: cr.grad(lambda x: cr.sum(cr.tensor([x[0], x[1]])))(V), ["cr.stack"]),
    "a copy of a tensor": (lambda: cr.grad(lambda x: cr.sum(cr.tensor(x, dtype="float64")))(V), ["astype"]),
    "a Python counter": (lambda: cr.grad(lambda m: cr.sum(m(X)))(Counts()), ["calls changed from 0 to 1", "buffer"]),
    "a counter, compiled": (lambda: cr.compile(Counts())(X), ["calls changed from 0 to 1", "buffer"]),
    "a kept activation": (lambda: cr.grad(lambda m: cr.sum(m(X)))(Remembers()), ["last was added", "has_aux"]),
    "a kept activation, compiled": (lambda: cr.compile(Remembers())(X), ["last was added", "return activations"]),
    "an optimiser without state": (unprepared, ["Adam had no state", r"init\(model\)"]),
    "backward after compile": (compiled_then_backward, ["compiled function", "value_and_grad"]),
    "if on a traced tensor": (lambda: cr.compile(lambda x: x if x[0] > 0 else -x)(V), ["truth value", "cr.where"]),
    "a model that is no argument": (lambda: cr.compile(lambda x: OUTSIDE(x))(V), ["not an argument", "Pass"]),
    "shapes that do not broadcast": (lambda: V + cr.ones(4), [r"add: shapes \(3,\) and \(4,\)", "from the right"]),
    "matrices that do not fit": (lambda: X @ X, [r"\(8, 3\) @ \(8, 3\)", "inner extents 3 and 8"]),
    "a layer of another width": (lambda: model()(cr.ones((8, 5))), ["Linear", "3", r"\(8, 5\)"]),
    "targets of another length": (lambda: losses.cross_entropy(X, Y[:7]), [r"\(8,\)", r"\(7,\)"]),
    "floats for classes": (lambda: losses.cross_entropy(X, cr.ones(8)), ["cast it to integers"]),
    "a class that is not there": (lambda: losses.cross_entropy(X, Y + 9), ["is 9", "3 classes"]),
    "a broadcasting loss": (lambda: losses.mse(cr.ones((8, 1)), cr.ones(8)), [r"reshape\(\(8, 1\)\)"]),
    "probabilities above 1": (lambda: losses.binary_cross_entropy(2 * V, V * 0), ["between 0 and 1", "with_logits"]),
    "an unknown reduction": (lambda: losses.mse(V, V, reduction="avg"), ["'avg'", "'mean'"]),
    "parameters() for an optimiser": (lambda: optim.SGD(model().parameters(), lr=0.1), [r"SGD\(model\)"]),
    "the rate for the model": (lambda: optim.SGD(0.1), [r"SGD\(lr=0.1\)"]),
    "step without backward": (lambda: optim.SGD(model(), lr=0.1).step(), [r"loss.backward\(\)"]),
    "backward without a leaf": (lambda: cr.sum(V).backward(), ["requires_grad=True"]),
    "backward of a vector": (lambda: (cr.tensor([1.0, 2.0], requires_grad=True) * 2).backward(), [r"\(2,\)"]),
    "trained integers": (lambda: cr.tensor([1], requires_grad=True), ["int64"]),
    "words for numbers": (lambda: cr.tensor(["a", "b"]), ["numbers", "'a'"]),
    "nothing for numbers": (lambda: cr.tensor(None), ["numbers", "None"]),
    "a number of 70 bits": (lambda: cr.tensor(2**70), ["64 bits"]),
    "ragged rows": (lambda: cr.tensor([[1, 2], [3]]), ["different lengths"]),
    "a dtype that is not there": (lambda: cr.tensor([1], dtype="int16"), ["int16", "int32"]),
    "dropout without a generator": (lambda: cr.dropout(V, 0.5), ["generator"]),
    "an unknown engine": (lambda: cr.compile(lambda x: x, engine="warp")(V), ["'warp'", "reference"]),
    "weights of another model": (lambda: nn.Linear(3, 2).load_state_dict(model().state_dict()), ["missing", "weight"]),
    "a rule that forgets one": (
        lambda: cr.grad(cr.custom_vjp(lambda a, b: a * b, lambda dy, y, a, b: (dy * b,)))(1.0, 2.0), ["2 arguments"],
    ),
    "a rule that gives a number": (
        lambda: cr.grad(cr.custom_vjp(lambda a: a * 1, lambda dy, y, a: (1.0,)))(1.0), ["rule of custom gave 1.0"],
    ),
    "tangents of another shape": (lambda: cr.jvp(cr.sin, (V,), (cr.tensor(1.0),)), ["shapes of the primals"]),
}  # fmt: skip
OUTSIDE = model()


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_told_what_to_try(name):
    wrong, words = MISTAKES[name]
    with pytest.raises(errors.ChainruleError, match=".*".join(words)) as caught:
        wrong()
    assert len(str(caught.value)) < 700


def test_tensors_cannot_be_written_to():
    with pytest.raises(TypeError, match=r"immutable.*cr\.where"):
        assign()
