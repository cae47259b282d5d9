"""A run that several machines gather: what each asks, and how their stores become one run again."""
