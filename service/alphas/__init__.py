"""Alphas: what the candidates of a trial's supernet weigh, epoch by epoch."""
