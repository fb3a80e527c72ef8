"""Compiled kernels for CPUs, on tensors in lanes; see `search_core.relaxation.lanes`."""
