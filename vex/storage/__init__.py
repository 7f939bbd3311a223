"""What is kept: rows, files, and the directory of both; the only place with SQL."""
