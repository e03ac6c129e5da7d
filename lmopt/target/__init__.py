"""Target profiles: what lmopt knows of a device."""
