"""Android phones on a cable: found, described, and made to run TFLite's benchmark tool."""
