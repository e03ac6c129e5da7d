"""Candidates and fronts."""
