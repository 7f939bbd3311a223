-- What rules and undo need.

-- What is deleted and kept for a while: see removal.py. A quota does not count it.
CREATE INDEX repository_manifest_gone ON repository_manifest (repository) WHERE state = 3;
