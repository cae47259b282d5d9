"""Options and files become one specification of engines and run."""
