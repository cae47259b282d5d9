"""What every adapter sends and reads: requests, answers, refusals, control calls."""
