"""What runners and trials wrote, from the artifact storage."""
