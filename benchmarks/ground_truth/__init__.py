"""Does a HyperCuboid search find the best path? A grid trained whole is the ground truth."""
