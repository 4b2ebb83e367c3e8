"""The same bits whatever the number of BLAS threads; and the process gets its setting back."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.blas import single_threaded

SOURCE = Path(cr.__file__).parents[1]
SCRIPT = """
import hashlib
import numpy as np
import chainrule as cr
from chainrule import losses, nn, optim

digest = hashlib.sha256()
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for m, k, n in [(32, 784, 128), (200, 300, 100), (500, 500, 500), (1, 1000, 1000), (1000, 1000, 1)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        digest.update(np.asarray(cr.matmul(a, b)).tobytes())
        digest.update(np.asarray(cr.compile(cr.matmul)(a, b)).tobytes())
cr.random.manual_seed(0)
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
x, y = rng.standard_normal((256, 784)), rng.integers(0, 10, 256)
cr.fit(model, (x, y), loss=losses.cross_entropy, optimizer=optim.Adam(), epochs=2, seed=0, progress="silent")
for tensor in model.state_dict().values():
    digest.update(np.asarray(tensor).tobytes())
print(digest.hexdigest())
"""


def digest(threads):
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.strip()


@pytest.mark.skipif(not single_threaded.controlled, reason="the threads of this NumPy's BLAS cannot be set")
def test_the_same_bits_on_any_number_of_threads():
    assert len({digest(threads) for threads in (1, 2, 4)}) == 1


@pytest.mark.skipif(not single_threaded.controlled, reason="the threads of this NumPy's BLAS cannot be set")
def test_the_setting_of_the_process_comes_back():
    set_threads, get_threads = single_threaded._functions
    before = get_threads()
    try:
        set_threads(2)
        inside = []

        def multiply():
            for _ in range(200):
                with single_threaded:
                    inside.append(get_threads())
                cr.matmul(np.ones((20, 20)), np.ones((20, 20)))

        threads = [threading.Thread(target=multiply) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        with pytest.raises(ValueError, match="inside"), single_threaded:
            raise ValueError("inside")
        assert set(inside) == {1}
        assert get_threads() == 2
    finally:
        set_threads(before)
