-- Files of the spool whose jobs are stored: the file goes first, then the row, so that none is taken twice.
CREATE TABLE taken_files (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
