"""Renderers of results: JSON, plots and pages, all files written whole."""
