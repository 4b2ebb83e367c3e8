from chainrule import primitives
from chainrule.core.autodiff import *
from chainrule.core.tensor import tensor, Tensor
from chainrule.functions.custom import checkpoint, custom_vjp
from chainrule.compile import compile, trace
