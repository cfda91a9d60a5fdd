-- One row for each life of an edit; a path has at most one living edit.
CREATE TABLE edits (
  id      TEXT PRIMARY KEY,
  target  TEXT NOT NULL,
  path    TEXT NOT NULL,
  living  INTEGER NOT NULL CHECK (living IN (0, 1)),
  since   TEXT NOT NULL,
  body    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_living_edit ON edits (target, path) WHERE living = 1;
