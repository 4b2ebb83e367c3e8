"""For all tests: BLAS on one thread, since several test processes share the cores, and its threads wait by spinning."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
