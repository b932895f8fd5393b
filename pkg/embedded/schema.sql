-- Version 3. Times are microseconds since 1970; json columns hold the types of
-- packages rotation and consent, beside the columns that queries need.
PRAGMA application_id = 0x7474726e; -- "ttrn"
PRAGMA user_version = 3;

-- One row: the id of the key file that the sealed columns need.
CREATE TABLE installation (key_id TEXT NOT NULL) STRICT;

CREATE TABLE record (
  connection TEXT PRIMARY KEY,
  revision   TEXT NOT NULL,
  due_at     INTEGER, -- NULL: never
  json       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX record_due ON record (due_at, connection) WHERE due_at IS NOT NULL;

-- Token responses. No reference to record: saving one depends on nothing.
CREATE TABLE mint (
  connection TEXT NOT NULL,
  epoch      INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  attempt    TEXT NOT NULL,
  json       TEXT NOT NULL,
  PRIMARY KEY (connection, epoch, generation, attempt)
) STRICT, WITHOUT ROWID;

-- Which claim may save an answer in which slot of the reserve; see reserve.go.
CREATE TABLE reserve ( -- since version 3
  slot       INTEGER PRIMARY KEY,
  connection TEXT NOT NULL,
  claim      TEXT NOT NULL,
  until      INTEGER NOT NULL -- the latest time at which its answer is expected
) STRICT;

CREATE TABLE event (
  id         INTEGER PRIMARY KEY,
  connection TEXT NOT NULL,
  at         INTEGER NOT NULL,
  json       TEXT NOT NULL
) STRICT;
CREATE INDEX event_connection ON event (connection, at);

-- A secret exists while it has a version.
CREATE TABLE version (
  connection TEXT NOT NULL,
  id         TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  sealed     BLOB NOT NULL, -- under the key file
  PRIMARY KEY (connection, id)
) STRICT;
CREATE TABLE label (
  connection TEXT NOT NULL,
  label      TEXT NOT NULL,
  id         TEXT NOT NULL,
  PRIMARY KEY (connection, label),
  FOREIGN KEY (connection, id) REFERENCES version (connection, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_version ON label (connection, id);
CREATE TABLE deletion ( -- since version 2
  connection TEXT PRIMARY KEY,
  at         INTEGER NOT NULL -- when its secret is deleted
) STRICT, WITHOUT ROWID;

CREATE TABLE application (
  environment TEXT PRIMARY KEY,
  sealed      BLOB NOT NULL -- under the key file
) STRICT, WITHOUT ROWID;

CREATE TABLE invitation (
  hash       TEXT PRIMARY KEY,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  json       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
  hash       TEXT PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  nonce      TEXT NOT NULL, -- of the call that consumed it; empty: not consumed
  json       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
