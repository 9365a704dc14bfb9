-- "QctL": tells our databases from other people's.
PRAGMA application_id = 0x5163744C;

-- One row: who this store is, and the largest numbers ever given, so that none is given twice.
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    uuid TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    last_token INTEGER NOT NULL,
    last_entry INTEGER NOT NULL,
    -- The largest number of an entry that retention took away.
    removed_entry INTEGER NOT NULL
) STRICT;

CREATE TABLE queues (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

INSERT INTO queues VALUES ('default');

-- state: 0 pending, 1 processing, 2 completed, 3 failed, 4 dead, 5 cancelled, 6 deleted.
-- place: 0 in no index; 1 could start now; 2 waits for its time; 3 ages as finished; 4 ages as deleted.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    place INTEGER NOT NULL,
    hidden INTEGER NOT NULL,
    version INTEGER NOT NULL,
    queue TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    due REAL NOT NULL,
    rank REAL NOT NULL,
    reason TEXT,
    attempts INTEGER NOT NULL,
    retries_spent INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    first_started_at REAL,
    started_at REAL,
    ended_at REAL,
    exit_code INTEGER,
    signal INTEGER,
    error TEXT,
    token INTEGER,
    cancel_requested TEXT,
    seen INTEGER NOT NULL,
    environment TEXT,
    stdin TEXT,
    script TEXT,
    spec TEXT NOT NULL
) STRICT;

-- A column of its own says whether a job is hidden: a partial index over `state` would be rewritten with every move.
CREATE UNIQUE INDEX jobs_by_id ON jobs (id) WHERE hidden = 0;
CREATE INDEX hidden_jobs_by_id ON jobs (id) WHERE hidden = 1;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX startable_jobs ON jobs (queue, rank) WHERE place = 1;
CREATE INDEX unripe_jobs ON jobs (due) WHERE place = 2;
CREATE INDEX finished_jobs ON jobs (updated_at) WHERE place = 3;
CREATE INDEX deleted_jobs ON jobs (updated_at) WHERE place = 4;

-- How many jobs there are. kind: as state, and 7 for a dead job that was seen.
CREATE TABLE counts (
    queue TEXT NOT NULL,
    kind INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (queue, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    token INTEGER PRIMARY KEY,
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    worker TEXT NOT NULL,
    worker_pid INTEGER NOT NULL,
    worker_start INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    queued_at REAL NOT NULL,
    claimed_at REAL NOT NULL,
    pid INTEGER,
    pid_start INTEGER,
    started_at REAL,
    -- JSON; NULL as long as it is live.
    outcome TEXT
) STRICT;

CREATE INDEX attempts_by_job ON attempts (job);
CREATE INDEX live_attempts ON attempts (token) WHERE outcome IS NULL;

-- The history of everything. body: JSON of what is not in the columns, which are there to be searched.
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    seq INTEGER,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX entries_by_seq ON entries (seq) WHERE seq IS NOT NULL;

-- Environments, inputs and scripts of jobs; equal ones once. The data stands apart, so that counting does not rewrite it.
CREATE TABLE blobs (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    refs INTEGER NOT NULL
) STRICT;

CREATE TABLE blob_data (
    number INTEGER PRIMARY KEY,
    data BLOB NOT NULL
) STRICT;

-- Answers to requests that carried a key, so that a resent one changes nothing.
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    at REAL NOT NULL,
    reply BLOB NOT NULL
) STRICT;

CREATE INDEX requests_by_age ON requests (at, key);
