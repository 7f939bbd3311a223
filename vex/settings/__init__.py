"""The configuration: keys, values, files and flags."""
