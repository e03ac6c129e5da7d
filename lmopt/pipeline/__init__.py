"""Passes and pipelines: their contracts, text, catalog, cache and the manager that runs them."""
