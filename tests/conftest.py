"""For all tests: BLAS on one thread, since several test processes share the cores, and its threads wait by spinning;
and a cache of compiled code of their own. Processes that tests start hear Ctrl-C."""

import atexit
import os
import shutil
import signal
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if "CHAINRULE_CACHE_DIR" not in os.environ:  # processes that this one starts share it
    os.environ["CHAINRULE_CACHE_DIR"] = tempfile.mkdtemp(prefix="chainrule-tests-")
    atexit.register(shutil.rmtree, os.environ["CHAINRULE_CACHE_DIR"], ignore_errors=True)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what runs in the background; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
