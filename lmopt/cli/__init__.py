"""The command line: thin commands over `lmopt`'s functions, and how their results look."""
