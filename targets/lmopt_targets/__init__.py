"""The built-in targets: every TOML file in this package is one."""
