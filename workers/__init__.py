"""From a claimed row to a recorded result: dispatcher, runner, trials on Ray."""
