"""Training recipes, one TOML per detector."""
