"""Everything on one machine: the processes behind `dartboard up`, `down` and `status`."""
