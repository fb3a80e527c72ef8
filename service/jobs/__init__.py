"""What searches and trainings have in common: one queue, one life, one list."""
