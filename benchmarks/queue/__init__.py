"""What the service costs: submitting, claiming, reading, writing, streaming, starting."""
