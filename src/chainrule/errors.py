"""One tree of exceptions. Each message names the thing, what came, what was expected and what to try.

ChainruleError
├── ShapeError          shapes that do not fit together           (also a ValueError)
├── DTypeError          a dtype that an operation does not take   (also a TypeError)
├── IndexOutOfRange     an index outside its axis                 (also an IndexError)
├── DivisionByZero      an integer divided by zero                (also a ZeroDivisionError)
├── TracedValueError    a value was needed while there is none    (also a TypeError)
├── GradientError       nothing to differentiate, or a wrong derivative
├── ProgramError        a Program that breaks its own rules: always our mistake
├── CompileError        machine code that cannot be made or loaded: always our mistake
├── ConfigError         an option, argument or configuration that makes no sense (also a ValueError)
├── StateError          names or shapes of saved weights that do not match the model
├── DataError           data that cannot be read or learned from
├── CheckpointError     a run folder or checkpoint that is missing, damaged or foreign
├── Diverged            the loss is not a number, and training stopped before the update
└── MissingDependency   an optional package is not installed      (also an ImportError)
"""


class ChainruleError(Exception):
    """The root: `except ChainruleError` catches everything that this library raises on purpose."""


class ShapeError(ChainruleError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(ChainruleError, TypeError):
    """A dtype that an operation does not take."""


class IndexOutOfRange(ChainruleError, IndexError):
    """An index that lies outside its axis."""


class DivisionByZero(ChainruleError, ZeroDivisionError):
    """An integer was divided by zero."""


class TracedValueError(ChainruleError, TypeError):
    """A traced tensor (a symbol without a value) stood where a value is needed."""


class GradientError(ChainruleError):
    """There is nothing to differentiate, or a derivative is wrong."""


class ProgramError(ChainruleError):
    """A Program breaks its own rules. Always a mistake of chainrule, never of its user."""


class CompileError(ChainruleError):
    """Machine code cannot be made or loaded. Always a mistake of chainrule, never of its user."""


class ConfigError(ChainruleError, ValueError):
    """An option, an argument or a configuration that makes no sense."""


class StateError(ChainruleError):
    """Names or shapes of saved weights do not match the model."""


class DataError(ChainruleError):
    """Data that cannot be read, or cannot be learned from."""


class CheckpointError(ChainruleError):
    """A run folder or a checkpoint is missing, damaged or of another kind."""


class Diverged(ChainruleError):
    """The loss is not a number; training stopped before the update."""


class MissingDependency(ChainruleError, ImportError):
    """An optional package is not installed."""
