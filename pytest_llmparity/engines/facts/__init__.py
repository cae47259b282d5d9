"""What files and this machine say: weights, digests, headers of model files, devices."""
