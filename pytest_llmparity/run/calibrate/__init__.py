"""What the lock says of drift, measured: the shift of a pair of engines, and a model's own ladder."""
