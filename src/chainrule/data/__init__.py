"""Data: five shipped sets, reading of tables and images from files, and their preparation for training.

Importing this package loads NumPy only. What needs Polars (`read`, `Table`, `Preparation` ...) is loaded when it is
first asked for.

>>> from chainrule import data
>>> data.names()
('breast_cancer', 'diabetes', 'digits', 'iris', 'wine')
>>> data.load("iris").x.shape
(150, 4)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chainrule.data.shipped import Dataset, load, names

if TYPE_CHECKING:
    from chainrule.data.arrays import Images
    from chainrule.data.preparation import Preparation, Prepared, prepare
    from chainrule.data.sources import read
    from chainrule.data.tables import Table

__all__ = ["Dataset", "Images", "Preparation", "Prepared", "Table", "load", "names", "prepare", "read"]

_LAZY = {
    "Images": "chainrule.data.arrays",
    "Preparation": "chainrule.data.preparation",
    "Prepared": "chainrule.data.preparation",
    "Table": "chainrule.data.tables",
    "prepare": "chainrule.data.preparation",
    "read": "chainrule.data.sources",
}


def __getattr__(name: str) -> Any:
    """Load a public name that needs Polars when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'chainrule.data' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
