"""A million steps of a tiny network: neither memory nor time grows."""

import time
from pathlib import Path

import numpy as np
import pytest
from tests.engines.native.suite import native
from tests.engines.native.test_suite_training import network, step

import chainrule as cr
from chainrule import optim

CHUNK, CHUNKS, BATCH = 10_000, 100, 16


def resident():
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_a_million_steps():
    rng = np.random.default_rng(0)
    model, optimizer, compiled = network("float32", (4, 16, 16, 3)), optim.Adam(lr=1e-3), native(step)
    x, y = rng.normal(size=(150, 4)).astype(np.float32), rng.integers(0, 3, 150)
    compiled(model, optimizer, cr.tensor(x[:BATCH]), cr.tensor(y[:BATCH]))
    session = compiled.latest.home.session
    losses, seconds, memory = [], [], []
    for _ in range(CHUNKS):
        rows = rng.integers(0, len(x), (CHUNK, BATCH))
        begun = time.perf_counter()
        chunk = session.chunk([x, y], rows, CHUNK, watch=True)
        seconds.append(time.perf_counter() - begun)
        memory.append(resident())
        assert chunk.error is None
        assert chunk.results[0].shape == (CHUNK,)
        losses.append(float(chunk.results[0].mean()))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert min(seconds[-20:]) < 1.5 * min(seconds[:20])
    assert max(memory[-20:]) < max(memory[:20]) + (8 << 20)
