"""Use cases: the only place that knows the order of things."""
