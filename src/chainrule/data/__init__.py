"""Data: five shipped sets, reading of tables, images and text from files, and their preparation for training.

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
    from chainrule.data.sources import holds_pictures, read
    from chainrule.data.tables import Table
    from chainrule.data.text import CharacterText

__all__ = [
    "CharacterText",
    "Dataset",
    "Images",
    "Preparation",
    "Prepared",
    "Table",
    "holds_pictures",
    "load",
    "names",
    "prepare",
    "read",
]

_LAZY = {
    "CharacterText": "chainrule.data.text",
    "Images": "chainrule.data.arrays",
    "Preparation": "chainrule.data.preparation",
    "Prepared": "chainrule.data.preparation",
    "Table": "chainrule.data.tables",
    "holds_pictures": "chainrule.data.sources",
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
