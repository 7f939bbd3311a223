-- Times are seconds since 1970. A manifest is content-addressed and shared by repositories; what it references counts
-- within each repository that holds it, so the references hang on repository_manifest.

CREATE TABLE repository (
  id      INTEGER PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  emptied INTEGER                     -- since when it holds no manifest; NULL while it holds one
);
CREATE INDEX repository_listed ON repository (name) WHERE emptied IS NULL;
CREATE INDEX repository_emptied ON repository (emptied) WHERE emptied IS NOT NULL;

CREATE TABLE blob (
  id      INTEGER PRIMARY KEY,
  digest  TEXT NOT NULL UNIQUE,
  size    INTEGER NOT NULL,
  created INTEGER NOT NULL,
  damaged INTEGER NOT NULL DEFAULT 0  -- 1: the file is missing or short; the next push of it heals this
);
CREATE INDEX blob_damaged ON blob (id) WHERE damaged;

CREATE TABLE manifest (
  id            INTEGER PRIMARY KEY,
  digest        TEXT NOT NULL UNIQUE,
  size          INTEGER NOT NULL,
  artifact_type TEXT NOT NULL,        -- as the referrers API shows it; '' where it is left out
  annotations   TEXT NOT NULL,        -- a JSON object
  content       BLOB NOT NULL         -- last, so that the columns before it are read without it
);

CREATE TABLE repository_manifest (
  repository INTEGER NOT NULL REFERENCES repository (id),
  manifest   INTEGER NOT NULL REFERENCES manifest (id),
  media_type TEXT NOT NULL,           -- what it was pushed with
  subject    TEXT,                    -- a digest; may dangle
  pushed     INTEGER NOT NULL,
  expires    INTEGER,                 -- its tag was pointed elsewhere: removed then, if nothing references it
  PRIMARY KEY (repository, manifest)
) WITHOUT ROWID;
CREATE INDEX repository_manifest_manifest ON repository_manifest (manifest);
CREATE INDEX repository_manifest_subject ON repository_manifest (repository, subject) WHERE subject IS NOT NULL;
CREATE INDEX repository_manifest_expires ON repository_manifest (expires) WHERE expires IS NOT NULL;

CREATE TABLE tag (
  repository INTEGER NOT NULL,
  name       TEXT NOT NULL,
  manifest   INTEGER NOT NULL,
  updated    INTEGER NOT NULL,
  PRIMARY KEY (repository, name),
  FOREIGN KEY (repository, manifest) REFERENCES repository_manifest (repository, manifest)
) WITHOUT ROWID;
CREATE INDEX tag_manifest ON tag (repository, manifest);

CREATE TABLE manifest_blob (
  repository INTEGER NOT NULL,
  blob       INTEGER NOT NULL REFERENCES blob (id),
  manifest   INTEGER NOT NULL,
  PRIMARY KEY (repository, blob, manifest),
  FOREIGN KEY (repository, manifest) REFERENCES repository_manifest (repository, manifest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_blob_manifest ON manifest_blob (repository, manifest);
CREATE INDEX manifest_blob_blob ON manifest_blob (blob);

CREATE TABLE manifest_child (
  repository INTEGER NOT NULL,
  child      INTEGER NOT NULL,
  parent     INTEGER NOT NULL,
  PRIMARY KEY (repository, child, parent),
  FOREIGN KEY (repository, child) REFERENCES repository_manifest (repository, manifest),
  FOREIGN KEY (repository, parent) REFERENCES repository_manifest (repository, manifest) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX manifest_child_parent ON manifest_child (repository, parent);

-- This repository holds this blob until then, although no manifest of it may reference it.
CREATE TABLE lease (
  repository INTEGER NOT NULL REFERENCES repository (id),
  blob       INTEGER NOT NULL REFERENCES blob (id),
  expires    INTEGER NOT NULL,
  PRIMARY KEY (repository, blob)
) WITHOUT ROWID;
CREATE INDEX lease_blob ON lease (blob);
CREATE INDEX lease_expires ON lease (expires);

CREATE TABLE user (
  name    TEXT PRIMARY KEY,
  salt    BLOB NOT NULL,
  hash    BLOB NOT NULL,
  version INTEGER NOT NULL,           -- changes whenever the password does, also when a name is used again
  created INTEGER NOT NULL
) WITHOUT ROWID;
