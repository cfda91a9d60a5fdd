-- Columns hold what is searched for; `body` holds the whole record as JSON.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE deploys (
  id         TEXT PRIMARY KEY,
  request    TEXT NOT NULL,  -- Request.key as JSON: equal requests are one deploy
  state      TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done')),
  status     TEXT CHECK ((state = 'done') = (status IS NOT NULL)),
  sha        TEXT,
  pid        INTEGER,
  asked_at   TEXT NOT NULL,
  cancel_by  TEXT,
  body       TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_running ON deploys (state) WHERE state = 'running';
CREATE UNIQUE INDEX one_waiting ON deploys (state) WHERE state = 'waiting';
CREATE INDEX deploys_by_sha ON deploys (sha);

CREATE TABLE stages (
  number  INTEGER PRIMARY KEY,
  deploy  TEXT NOT NULL REFERENCES deploys (id) ON DELETE CASCADE,
  stage   TEXT NOT NULL,
  state   TEXT NOT NULL,
  detail  TEXT NOT NULL,
  at      TEXT NOT NULL
) STRICT;
CREATE INDEX stages_by_deploy ON stages (deploy, number);

CREATE TABLE services (name TEXT PRIMARY KEY, sha TEXT, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE targets (name TEXT PRIMARY KEY, tree TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE syncing (
  target     TEXT PRIMARY KEY,
  deploy     TEXT NOT NULL,
  from_tree  TEXT NOT NULL,
  to_tree    TEXT NOT NULL,
  at         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rescues (id TEXT PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE blocks (sha TEXT PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE holds (number INTEGER PRIMARY KEY, until TEXT NOT NULL, body TEXT NOT NULL) STRICT;

CREATE TABLE cached (key TEXT PRIMARY KEY, value TEXT NOT NULL, at TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  number  INTEGER PRIMARY KEY,
  at      TEXT NOT NULL,
  who     TEXT NOT NULL,
  action  TEXT NOT NULL,
  detail  TEXT NOT NULL
) STRICT;
