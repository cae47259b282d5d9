"""Requests to one engine: sent, retried, waited for, and made into samples of what comes back."""
