"""Measurements beside other libraries: `python -m benchmarks mlp`, from the root of the repository.

    layers           what networks are made of, said once for all libraries
    networks         the convolutional, recurrent and attention networks
    workloads        what is trained: networks, data, the figures to reach
    peers/           the same training step in each library, behind one interface
    worker           a process that holds one library and times it when it is asked
    runner           the processes of a workload, taking turns
    startup          from `python -c` to the first step; seconds to compile
    peak             what the machine can do at most
    report           tables

What is measured is the chainrule of this tree, even where another is installed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = str(ROOT / "src")

if SOURCE not in sys.path:
    sys.path.insert(0, SOURCE)
