"""A stored run becomes golden answers, and what no run asks for any more is removed."""
