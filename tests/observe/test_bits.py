"""Whoever looks at whichever values of a step, alone or together: the step keeps its bits."""

import numpy as np
import pytest

from chainrule import losses, nn, optim, tree
from chainrule.compile import ties
from chainrule.engines import find
from chainrule.passes.pipeline import optimise
from chainrule.program.program import observe
from chainrule.train.criterion import criterion
from chainrule.train.steps import Steps

RNG = np.random.default_rng(7)


def networks():
    vector, image = RNG.normal(size=(9, 7)).astype(np.float32), RNG.normal(size=(5, 2, 8, 8)).astype(np.float32)
    wide = RNG.normal(size=(3, 16, 9, 9)).astype(np.float32)
    return {
        "mlp": ([nn.Linear(7, 6), nn.GELU(), nn.Dropout(0.3), nn.Linear(6, 3)], vector),
        "norms": ([nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.LayerNorm(6), nn.Linear(6, 3)], vector),
        "pools": (
            [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
             nn.Linear(64, 3)],
            image,
        ),
        "tiles": (
            [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.GroupNorm(4, 32), nn.SiLU(),
             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)],
            wide,
        ),
        "depthwise": (
            [nn.Conv2d(2, 4, 3, groups=2), nn.ELU(), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.AvgPool2d(2),
             nn.Flatten(), nn.Linear(108, 3)],
            image,
        ),
    }  # fmt: skip


def step_of(name):
    """The Program of a training step, its arrays, and which of them are held."""
    layers, x = networks()[name]
    model, optimizer = nn.Sequential(*layers), optim.SGD(lr=0.1, momentum=0.9, nesterov=True)
    model.seed(1)
    optimizer.prepare([model])
    compiled = Steps(criterion(losses.cross_entropy, False), "reference", clip_norm=1.0).training
    given = (model, optimizer, None, x, np.arange(len(x)) % 3, None, True)
    form = compiled.form(len(given), ())
    arguments = form.arguments(form.values(given, {}))
    flat = tree.flatten(arguments)
    traced = compiled.trace(flat, arguments, ties(flat))
    held = tuple(traced.inputs.index(i) for i in traced.owned)
    return optimise(traced.program), [np.asarray(flat.leaves[i].value) for i in traced.inputs], held


@pytest.mark.slow
@pytest.mark.parametrize("name", networks())
def test_looking_changes_no_bit(name):
    """Found so: a product whose observer saw it through a transpose was no longer fused with the sum after it."""
    program, arrays, held = step_of(name)
    engine, rng = find("native"), np.random.default_rng(0)
    expected = engine.compile(program, held)(arrays)
    computed = [i for i, node in enumerate(program.nodes) if node.primitive.kind != "source"]
    chosen = [computed, *[rng.choice(computed, size, replace=False).tolist() for size in (1, 1, 1, 2, 2, 5, 5, 20)]]
    for numbers in chosen:
        found = engine.compile(observe(program, numbers), held)(arrays)
        for out, a, b in zip(program.outputs, expected, found, strict=False):
            assert a.tobytes() == b.tobytes(), (out.name, numbers)
