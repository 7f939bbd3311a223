"""What is kept: rows, files, and the directory of both; the only place with SQL.

Functions that query (`*_rows.py`, `listings.py`, `removal.py` and others) take the transaction that they run in, never
commit, and decide nothing: the rules are in `references.py` and `registry.py`. Ids are the integer keys of the tables
(`sql/001-registry.sql`), times are seconds since 1970.
"""
