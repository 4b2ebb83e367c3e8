"""The suite again with a page that nobody may touch behind every buffer: no kernel reads or writes outside of one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.engines.native.suite import native

import chainrule as cr
from chainrule.core.tensor import tensor

ROOT = Path(__file__).parents[3]
FILES = (
    "primitives", "functions", "training", "random", "windows", "sparse", "winograd", "sums", "gates", "pitches",
    "stacks", "loops", "layers",
)  # fmt: skip

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs mprotect")


def run(*command, guarded="1"):
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "CHAINRULE_TEST_GUARDED": guarded, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": path}
    call = [sys.executable, *command]
    return subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=3000)


@pytest.mark.slow
@pytest.mark.parametrize("one_of", [pytest.param(1, id="all", marks=pytest.mark.thorough), pytest.param(4, id="some")])
@pytest.mark.parametrize("file", FILES)
def test_the_suite_stays_inside_of_its_buffers(file, one_of):
    path = Path(__file__).with_name(f"test_suite_{file}.py")
    some = ("-p", "tests.engines.native.one_of", f"--one-of={one_of}")
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *some, "-m", "not slow", str(path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


def test_guarded_memory_gives_the_same():
    """Every buffer ends where its page does, so nothing is aligned to more than an element."""
    x, w = (tensor(np.random.default_rng(0).normal(size=s).astype(np.float32)) for s in ((19, 7), (7, 33)))
    f = lambda x, w: cr.softmax(cr.tanh(x @ w) + 1.0, axis=1)
    for guarded in (True, False):
        np.testing.assert_array_equal(native(f, guarded=guarded)(x, w), native(f)(x, w))


SHORTER = """
import numpy as np
import chainrule as cr
from tests.engines.native import suite
from chainrule.engines.native import places

whole = places.bytes_of
places.bytes_of = lambda plan, x: whole(plan, x) - 4   # what nobody may do: memory one element too small
suite.verify_plan = lambda plan: plan
x = cr.tensor(np.ones((5, 7), np.float32))
print(suite.native(lambda x: cr.sum(cr.exp(x), axis=0) * cr.sum(cr.exp(x)), guarded={guarded})(x).shape)
"""


def test_one_element_too_far_is_noticed():
    assert run("-c", SHORTER.format(guarded=False)).returncode == 0
    done = run("-c", SHORTER.format(guarded=True))
    assert done.returncode < 0, (done.returncode, done.stdout, done.stderr)
