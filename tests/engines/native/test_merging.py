"""Functions that are written once: the same bits, less text."""

import numpy as np
import pytest
from tests.engines.native.suite import native

import chainrule as cr
from chainrule import losses, nn
from chainrule.core.tensor import wrap
from chainrule.engines.native import emit, ir, merging


def real(*shape):
    return wrap(np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype(np.float32))


def gradients(module, x):
    def f(module, x):
        loss, grads = cr.value_and_grad(lambda m: losses.mse(m(x), x))(module)
        return loss, *grads.values()

    return f, module, x


def layers(*make):
    return nn.Sequential(*[layer() for _ in range(4) for layer in make])


CASES = {
    "linear": lambda: gradients(layers(lambda: nn.Linear(20, 20), nn.Tanh), real(33, 20)),
    "convolution": lambda: gradients(layers(lambda: nn.Conv2d(20, 20, 3, padding=1), nn.ReLU), real(3, 20, 7, 6)),
    "recurrent": lambda: gradients(nn.Sequential(*[nn.Residual(First(9)) for _ in range(3)]), real(5, 2, 9)),
}


class First(nn.Module):
    def __init__(self, width):
        self.layer = nn.LSTM(width, width)

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("case", CASES)
def test_bits_do_not_depend_on_it(case, monkeypatch):
    f, module, x = CASES[case]()
    results, lines = [], []
    for many in (1, 1 << 30):
        monkeypatch.setattr(ir, "MANY", many)
        texts = []
        monkeypatch.setattr(
            "tests.engines.native.suite.emit", lambda plan, texts=texts: texts.append(emit.emit(plan)) or texts[0]
        )
        results.append(native(f, threads=2)(module, x))
        lines.append(texts[0].count("\n"))
    assert lines[0] < 0.8 * lines[1]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def function(name, offset, calls=()):
    inside = "".join(f"  call void @{c}(ptr %arena)\n" for c in calls)
    at = f"  %v1 = getelementptr i8, ptr %arena, i64 {offset}\n  store i8 0, ptr %v1\n"
    return f"define internal void @{name}(ptr %arena) nounwind {{\nentry:\n{at}{inside}  ret void\n}}\n"


def test_callers_of_what_was_merged_are_merged():
    texts = {
        "a": function("a", 128, ["b"]),
        "b": function("b", 192),
        "c": function("c", 256, ["d"]),
        "d": function("d", 320),
        "main": "define void @main(ptr %arena) {\n  call void @a(ptr %arena)\n  call void @c(ptr %arena)\n}\n",
    }
    *_, main = found = merging.merged(texts)
    assert len(found) == 3
    assert main.splitlines()[1:3] == [
        "  call void @a(ptr %arena, i64 128, i64 192)",
        "  call void @a(ptr %arena, i64 256, i64 320)",
    ]


def test_what_differs_stays():
    texts = {"a": function("a", 128), "b": function("b", 192).replace("i8 0", "i8 1")}
    assert len(merging.merged(texts)) == 2
