"""What a request means for rows and files: pushes, references, deletions, expiry; no HTTP and no SQL."""
