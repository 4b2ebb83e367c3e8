"""These tests compare with PyTorch. Without it they are skipped, unless CHAINRULE_ORACLE=1 makes that an error."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from chainrule.core.autodiff import vjp
from chainrule.core.tensor import tensor

HERE = Path(__file__).parent
MISSING = importlib.util.find_spec("torch") is None
INSTALL = "PyTorch is not installed: pip install 'chainrule[oracle]'"

if MISSING and os.environ.get("CHAINRULE_ORACLE") == "1":
    raise pytest.UsageError(f"CHAINRULE_ORACLE=1 asks for the comparison with PyTorch. {INSTALL}.")


class SkippedFile(pytest.File):
    """A file that is not imported, since it would import PyTorch."""

    def collect(self):
        pytest.skip(INSTALL, allow_module_level=True)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    collectors = yield
    is_test = MISSING and file_path.match("test_*.py")
    return [SkippedFile.from_parent(parent, path=file_path)] if is_test else collectors


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.oracle)


@pytest.fixture(scope="session")
def agree():
    """agree(ours, theirs, *arrays): values, gradients and (order=2) gradients of gradients are the same.

    `ours` takes chainrule tensors, `theirs` torch tensors; both are made of float64 `arrays`. Results may be tuples.
    """
    import torch

    def derivatives(ours, theirs, arrays, directions, order, rtol, atol):
        y, pull = vjp(ours, *[tensor(a) for a in arrays])
        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
        reference = theirs(*leaves)
        assert tuple(y.shape) == tuple(reference.shape)
        np.testing.assert_allclose(y.numpy(), reference.numpy(force=True), rtol=rtol, atol=atol)
        direction = directions.normal(size=y.shape)
        mine = pull(tensor(direction))
        grads = torch.autograd.grad(
            reference, leaves, torch.from_numpy(np.asarray(direction)), create_graph=True, allow_unused=True
        )
        for a, g, expected in zip(arrays, mine, grads, strict=True):
            expected = np.zeros_like(a) if expected is None else expected.numpy(force=True)
            np.testing.assert_allclose(g.numpy(), expected, rtol=rtol, atol=atol)
        if order == 1:
            return

        along = [directions.normal(size=a.shape) for a in arrays]

        def our_slope(*x):
            gradients = vjp(ours, *x)[1](tensor(direction))
            parts = [(g * tensor(d)).sum() for g, d in zip(gradients, along, strict=True)]
            return sum(parts[1:], parts[0])

        slope, pull = vjp(our_slope, *[tensor(a) for a in arrays])
        parts = [(g * torch.from_numpy(d)).sum() for g, d in zip(grads, along, strict=True) if g is not None]
        total = sum(parts[1:], parts[0])
        if not total.requires_grad:  # linear: PyTorch keeps no graph
            assert all(not g.numpy().any() for g in pull(slope * 0 + 1))
            return
        seconds = torch.autograd.grad(total, leaves, allow_unused=True)
        for a, g, expected in zip(arrays, pull(slope * 0 + 1), seconds, strict=True):
            expected = np.zeros_like(a) if expected is None else expected.numpy(force=True)
            np.testing.assert_allclose(g.numpy(), expected, rtol=rtol, atol=atol)

    def compare(ours, theirs, *arrays, order=2, rtol=1e-9, atol=1e-11, seed=0):
        arrays = [np.asarray(a, np.float64) for a in arrays]
        derivatives(ours, theirs, arrays, np.random.default_rng(seed), order, rtol, atol)

    return compare
