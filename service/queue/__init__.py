"""The queue: who waits and why, who runs, what the cluster holds."""
