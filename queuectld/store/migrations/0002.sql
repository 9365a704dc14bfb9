-- What the output of finished attempts takes up on disk, so that the whole of it can be bounded, oldest first.

ALTER TABLE attempts ADD COLUMN ended_at REAL;
-- Bytes, in whole blocks. 0: there is none, or the attempt is live; -1: nobody knows yet; NULL: it was removed.
ALTER TABLE attempts ADD COLUMN output INTEGER DEFAULT 0;
-- The sum over all attempts whose output is known.
ALTER TABLE store ADD COLUMN kept_output INTEGER NOT NULL DEFAULT 0;

-- Files of attempts (or their index beside them) that are to be removed: the files go first, then the row.
CREATE TABLE removed_output (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- As `queuectld.store.room` reckons it. Of a lost worker's attempt only the disk can tell.
UPDATE attempts SET
    ended_at = outcome ->> 'ended_at',
    output = CASE
        WHEN (outcome ->> 'output_bytes') > 0 THEN
            4096 + ((outcome ->> 'output_bytes') - ifnull(outcome ->> 'output_missing', 0) + 4095) / 4096 * 4096
        WHEN outcome ->> 'reason' IN ('lost', 'interrupted') THEN -1
        ELSE 0
    END
WHERE outcome IS NOT NULL;

UPDATE store SET kept_output = ifnull((SELECT sum(output) FROM attempts WHERE output > 0), 0);

CREATE INDEX kept_output ON attempts (ended_at) WHERE output > 0;
CREATE INDEX unmeasured_output ON attempts (token) WHERE output < 0;
