"""The core, to be read first: primitive.py, tensor.py, autodiff.py, check.py."""
