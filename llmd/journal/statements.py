"""The SQL of the store: how it is set up, its tables in each version, and a batch as one statement.

SQLite makes one transaction of a statement by itself, and Python lets its lock go and takes it again once for it, not
for every item: beside a busy event loop each taking may cost a turn of the loop. So the batch is one row that is
inserted into a view, whose trigger takes it apart: all bytes one behind the other, and beside them, as JSON, what each
piece is.
"""

import msgspec

from llmd.journal import Batch

PRAGMAS = (
    # Before anything is read, so that the log's index is in memory and there is no -shm file.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "fullfsync = ON",
    "wal_autocheckpoint = 2000",
    "journal_size_limit = 16777216",
    "temp_store = MEMORY",
    "cache_size = -8000",
    "secure_delete = OFF",
)

MIGRATIONS: list[tuple[str, ...]] = [
    (
        "CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, root TEXT NOT NULL, "
        "path TEXT NOT NULL, data BLOB NOT NULL)",
        "CREATE INDEX entries_of_root ON entries (root, seq)",
    ),
]
"""What makes, of a database of the version that is its place here, one of the next."""

VIEW = (
    "CREATE TEMP VIEW batch AS "
    "SELECT NULL data, NULL put, NULL remove, NULL enter, NULL below, NULL now_ms, NULL kept_ms",
    # Of a piece that is empty SQLite makes NULL.
    """
    CREATE TEMP TRIGGER take INSTEAD OF INSERT ON batch BEGIN
        INSERT OR REPLACE INTO rows
            SELECT CAST(json_extract(value, '$[0]') AS BLOB),
                coalesce(substr(NEW.data, json_extract(value, '$[1]'), json_extract(value, '$[2]')), x'')
            FROM json_each(NEW.put);
        DELETE FROM rows WHERE key IN (SELECT CAST(value AS BLOB) FROM json_each(NEW.remove));
        INSERT INTO entries
            SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
                json_extract(value, '$[3]'),
                coalesce(substr(NEW.data, json_extract(value, '$[4]'), json_extract(value, '$[5]')), x'')
            FROM json_each(NEW.enter);
        DELETE FROM entries WHERE seq < NEW.below AND abs(at_ms - NEW.now_ms) > NEW.kept_ms;
    END
    """,
)
"""What is made anew in every connection, for TAKE."""

TAKE = "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)"

Pruning = tuple[int | None, int | None, int | None]
NOTHING: Pruning = (None, None, None)
"""Which entries go: those with a number below the first that are further than the third from the second, both in
milliseconds. Those of a future that a wrong clock saw go as well: else they would stand before all others for ever.
"""

_encode = msgspec.json.Encoder().encode


def values_of(batch: Batch, last: int, pruning: Pruning = NOTHING) -> tuple[object, ...]:
    """The values of TAKE, where `last` is the number of the latest entry so far."""
    data = bytearray()

    def piece(value: bytes) -> tuple[int, int]:
        data.extend(value)
        return len(data) - len(value) + 1, len(value)

    put = [(key, *piece(value)) for key, value in batch.rows.items() if value is not None]
    remove = [key for key, value in batch.rows.items() if value is None]
    enter = [
        (number, at_ms, path.partition("/")[0], path, *piece(told))
        for number, (at_ms, path, told) in enumerate(batch.entries, last + 1)
    ]
    return (bytes(data), *(_encode(each).decode() for each in (put, remove, enter)), *pruning)
