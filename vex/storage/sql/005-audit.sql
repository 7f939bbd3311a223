-- The audit trail: changes of tags, in the order of their ids. By name and digest, without references: it outlives what it tells of.

CREATE TABLE tag_change (
  id         INTEGER PRIMARY KEY,
  time       INTEGER NOT NULL,
  user       TEXT NOT NULL,           -- '' where nobody asked for it
  address    TEXT NOT NULL,
  repository TEXT NOT NULL,
  tag        TEXT NOT NULL,
  before     TEXT,                    -- a digest; NULL where the tag is new
  after      TEXT                     -- a digest; NULL where the tag was deleted
);
CREATE INDEX tag_change_tag ON tag_change (repository, tag);
CREATE INDEX tag_change_time ON tag_change (time);
