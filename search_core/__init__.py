"""Differentiable architecture search: specs, spaces, supernets, the bilevel step, derivation.

The modules `spec`, `genotype` and `published` are free of torch, so that an HTTP service or a
client can import them; everything else needs PyTorch. Nothing here reads the environment, the
network or a database.
"""
