"""The SQL of the store: how it is set up, its tables in each version, and a batch as one statement.

SQLite makes one transaction of a statement by itself, and Python lets its lock go and takes it again once for it, not
for every item: beside a busy event loop each taking may cost a turn of the loop. So the batch is inserted into a view,
whose triggers do with each item what its kind says.
"""

from functools import cache

from llmd.journal import Batch

Item = tuple[str | None, object, object, object, object, object]
NOTHING: Item = (None, None, None, None, None, None)

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How many items the statements take: few sizes, so that each is prepared once."""

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

TRIGGERS = (
    "CREATE TEMP VIEW batch AS SELECT NULL kind, NULL a, NULL b, NULL c, NULL d, NULL e",
    "CREATE TEMP TRIGGER put INSTEAD OF INSERT ON batch WHEN NEW.kind = 'put' "
    "BEGIN INSERT OR REPLACE INTO rows VALUES (NEW.a, NEW.b); END",
    "CREATE TEMP TRIGGER remove INSTEAD OF INSERT ON batch WHEN NEW.kind = 'remove' "
    "BEGIN DELETE FROM rows WHERE key = NEW.a; END",
    "CREATE TEMP TRIGGER enter INSTEAD OF INSERT ON batch WHEN NEW.kind = 'enter' "
    "BEGIN INSERT INTO entries VALUES (NEW.a, NEW.b, NEW.c, NEW.d, NEW.e); END",
    "CREATE TEMP TRIGGER prune INSTEAD OF INSERT ON batch WHEN NEW.kind = 'prune' "
    "BEGIN DELETE FROM entries WHERE seq < NEW.a AND abs(at_ms - NEW.b) > NEW.c; END",
)


def items_of(batch: Batch, last: int) -> list[Item]:
    """What the batch puts, removes and enters, where `last` is the number of the latest entry so far."""
    items: list[Item] = []
    for key, value in batch.rows.items():
        items.append(("remove" if value is None else "put", key.encode(), value, None, None, None))
    for number, (at_ms, path, data) in enumerate(batch.entries, last + 1):
        items.append(("enter", number, at_ms, path.partition("/")[0], path, data))
    return items


def pruning(before: int, now_ms: int, kept_ms: int) -> Item:
    """Remove the entries with a number below `before` that are further than `kept_ms` from `now_ms`.

    Those of a future that a wrong clock saw go as well: else they would stand before all others for ever.
    """
    return ("prune", before, now_ms, kept_ms, None, None)


def padded(items: list[Item]) -> list[object]:
    """The values of a statement for so many items, filled up to the next of SIZES. At most the largest of them."""
    size = next(size for size in SIZES if size >= len(items))
    return [value for item in [*items, *[NOTHING] * (size - len(items))] for value in item]


@cache
def insertion(size: int) -> str:
    """The statement for one of SIZES."""
    return f"INSERT INTO batch VALUES {','.join(['(?,?,?,?,?,?)'] * size)}"  # noqa: S608 - nothing but placeholders
