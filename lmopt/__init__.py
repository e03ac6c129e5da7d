"""lmopt: optimizes facial-landmark detectors for phones."""
