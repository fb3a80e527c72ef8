"""Paths: the best architectures of a hypercuboid at a trial's last epoch, and its picture."""
