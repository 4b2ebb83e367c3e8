"""The native engine: whole Programs as machine code, through LLVM. llvmlite is loaded when something is compiled."""
