"""Reading a log: what SQLite would recover of it, and whether what it would drop had been acknowledged.

SQLite itself is the judge of what is whole: it opens every log that a test has cut or changed.
"""

import io
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.journal.wal import FRAME, HEADER, Verdict, checksum, scan

PAGE = 512
SLOT = FRAME.size + PAGE


class Log:
    """A database of tiny pages, and its log after some transactions, each of which adds one row of three pages."""

    def __init__(self, directory: Path, transactions: int = 0, *pragmas: str) -> None:
        self.path = directory / "log.db"
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        for pragma in (f"page_size = {PAGE}", "journal_mode = WAL", "synchronous = OFF", *pragmas):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        self.connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filling BLOB)")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for _ in range(transactions):
            self.add()

    def add(self) -> None:
        self.connection.execute("INSERT INTO t (filling) VALUES (randomblob(800))")

    def data(self) -> bytes:
        return self.path.with_name("log.db-wal").read_bytes()

    def recovered(self, data: bytes, directory: Path) -> int:
        """How many rows SQLite finds, with that for a log."""
        copy = directory / "copy.db"
        copy.write_bytes(self.path.read_bytes())
        copy.with_name("copy.db-wal").write_bytes(data)
        with closing(sqlite3.connect(copy)) as connection:
            found: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
        return found


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path, 5)
    yield made
    made.connection.close()


def seen(data: bytes) -> Verdict:
    return scan(io.BytesIO(data), PAGE)


def ends(data: bytes) -> list[int]:
    """Where each transaction ends, in a log without damage."""
    starts = range(HEADER.size, len(data), SLOT)
    return [start + SLOT for start in starts if FRAME.unpack_from(data, start)[1]]


def flipped(data: bytes, position: int, with_bits: int = 0x5A) -> bytes:
    return data[:position] + bytes([data[position] ^ with_bits]) + data[position + 1 :]


def test_a_log_that_ends_with_a_commit_is_whole(log: Log, tmp_path: Path) -> None:
    data = log.data()
    assert seen(data) == Verdict("whole", 5, len(data))
    assert len(ends(data)) == 5
    assert ends(data)[0] - HEADER.size > 2 * SLOT, "a transaction has frames before its commit"
    assert log.recovered(data, tmp_path) == 5


def test_an_empty_log_is_whole_and_half_a_header_is_a_torn_tail() -> None:
    assert seen(b"") == Verdict("whole", 0, 0)
    assert seen(b"\x37\x7f") == Verdict("torn", 0, 0, 2)


def test_a_last_transaction_cut_at_any_byte_is_a_torn_tail(log: Log) -> None:
    data = log.data()
    start, end = ends(data)[-2:]
    assert seen(data[:start]) == Verdict("whole", 4, start)
    for cut in range(start + 1, end):
        assert seen(data[:cut]) == Verdict("torn", 4, start, cut - start), cut


def test_a_last_transaction_wrong_at_any_byte_is_a_torn_tail_though_its_commit_is_there(log: Log) -> None:
    data = log.data()
    start, end = ends(data)[-2:]
    for position in range(start, end):
        verdict = seen(flipped(data, position))
        if (position - start) % SLOT in range(4, 8) and position < end - SLOT:
            # Marked as a commit, with a frame that goes on from it: no loss of power makes that of one transaction.
            assert verdict.state == "damaged", position
        elif position in range(end - SLOT + 8, end - SLOT + 16):
            # The salts of the very last frame: all before it is right, and it may be from before.
            assert (verdict.state, verdict.tail) == ("torn", end - SLOT - start), position
        else:
            assert verdict == Verdict("torn", 4, start, end - start), position


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("filling", [b"\0", b"\x5a"])
def test_a_last_transaction_of_which_any_sectors_are_missing_is_a_torn_tail(
    log: Log, sector: int, filling: bytes
) -> None:
    data = log.data()
    start, end = ends(data)[-2:]
    sectors = range(start // sector * sector, end, sector)
    for missing in range(1, 1 << min(len(sectors), 6)):
        torn = bytearray(data)
        for number, position in enumerate(sectors):
            if missing >> number % 6 & 1:
                lost = slice(max(start, position), min(end, position + sector))
                torn[lost] = filling * (lost.stop - lost.start)
        verdict = seen(bytes(torn))
        assert (verdict.state, verdict.commits, verdict.end) in [("torn", 4, start), ("whole", 4, start)], missing


def test_damage_anywhere_with_two_whole_transactions_behind_it_is_seen(log: Log) -> None:
    data = log.data()
    for position in range(HEADER.size, ends(data)[2], 3):
        verdict = seen(flipped(data, position))
        before = sum(end <= position for end in ends(data))
        assert (verdict.state, verdict.commits) == ("damaged", before), position
        assert verdict.lost >= 1
        assert verdict.tail == len(data) - verdict.end


def test_damage_with_one_whole_transaction_behind_it_is_seen_but_in_the_mark_of_a_commit(log: Log) -> None:
    data = log.data()
    start, end = ends(data)[2:4]
    unseen = [p for p in range(start, end) if seen(flipped(data, p)).state != "damaged"]
    # Its stored checksum, from which the next transaction would be seen to go on.
    assert unseen == list(range(end - SLOT + 16, end - SLOT + 24))


def test_damage_with_the_beginning_of_a_later_transaction_behind_it_is_seen(log: Log) -> None:
    data = log.data()
    start, end = ends(data)[2:4]
    assert seen(flipped(data[: end + SLOT], start + 100)).state == "damaged"
    assert seen(flipped(data[:end], start + 100)).state == "torn"


def test_several_whole_transactions_behind_damage_show_it_though_each_stands_alone(log: Log) -> None:
    data = log.data()
    for start in ends(data)[:4]:
        data = flipped(data, start + 100)
    verdict = seen(data)
    assert (verdict.state, verdict.commits, verdict.lost) == ("damaged", 1, 4)


@pytest.mark.parametrize("position", range(HEADER.size))
def test_a_damaged_header_with_frames_behind_it_is_damage(log: Log, position: int) -> None:
    verdict = seen(flipped(log.data(), position))
    assert (verdict.state, verdict.commits) == ("damaged", 0)
    # The first frame goes on from the header's own checksum, where that is not what is wrong.
    assert verdict.lost == 5


def test_a_damaged_header_with_nothing_behind_it_is_a_torn_tail(log: Log) -> None:
    data = log.data()
    assert seen(flipped(data[: HEADER.size], 9)).state == "torn"
    assert seen(flipped(data[: HEADER.size + SLOT - 1], 9)).state == "torn"
    assert seen(flipped(data[: HEADER.size + SLOT], 9)).state == "damaged"


def test_blocks_of_zeros_are_no_frames(log: Log) -> None:
    data = log.data()
    assert seen(bytes(len(data))) == Verdict("torn", 0, 0, len(data))
    assert seen(data + bytes(3 * SLOT)) == Verdict("whole", 5, len(data))


def test_a_hole_of_lost_blocks_is_damage(log: Log) -> None:
    data = log.data()
    start = ends(data)[0]
    assert seen(data[:start] + bytes(4096) + data[start + 4096 :]).state == "damaged"


def test_frames_left_from_before_the_log_began_anew_are_nothing(log: Log, tmp_path: Path) -> None:
    before = log.data()
    log.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    log.add()
    data = log.data()
    assert len(data) == len(before)
    assert data[HEADER.size + 8 : HEADER.size + 16] != before[HEADER.size + 8 : HEADER.size + 16]
    assert seen(data) == Verdict("whole", 1, ends(data)[0])
    torn = seen(flipped(data, ends(data)[0] - 3))
    assert (torn.state, torn.commits, torn.tail) == ("torn", 0, ends(data)[0] - HEADER.size)
    assert log.recovered(data, tmp_path) == 6


def test_what_failed_writes_left_behind_a_commit_is_no_damage(tmp_path: Path) -> None:
    log = Log(tmp_path, 3, "cache_size = 5", "cache_spill = 1")
    with closing(log.connection):
        for rows in (40, 20):
            log.connection.execute("BEGIN")
            for _ in range(rows):
                log.add()
            log.connection.execute("ROLLBACK")
        log.add()
        data = log.data()
        whole = seen(data)
        assert len(data) - whole.end > 20 * SLOT, "frames of both are there"
        assert (whole.state, whole.commits) == ("torn", 4)
        assert log.recovered(data, tmp_path) == 4


@pytest.mark.parametrize("big", [False, True])
def test_checksums_of_either_byte_order_are_SQLites(log: Log, tmp_path: Path, big: bool) -> None:
    data = bytearray(log.data())
    data[3] = data[3] & 0xFE | big
    sums = checksum(bytes(data[:24]), (0, 0), big)
    data[24:32] = HEADER.pack(*[0] * 6, *sums)[24:]
    for start in range(HEADER.size, len(data), SLOT):
        sums = checksum(bytes(data[start : start + 8] + data[start + 24 : start + SLOT]), sums, big)
        data[start + 16 : start + 24] = HEADER.pack(*[0] * 6, *sums)[24:]
    assert seen(bytes(data)) == Verdict("whole", 5, len(data))
    assert log.recovered(bytes(data), tmp_path) == 5
    assert seen(flipped(bytes(data), 40)).state == "damaged"
    assert seen(flipped(bytes(data), 9)).state == "damaged"


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3), kept=st.floats(0, 1))
def test_of_any_log_as_many_transactions_are_whole_as_SQLite_recovers(
    several: tuple[Log, Path], changes: list[tuple[float, int]], kept: float
) -> None:
    log, directory = several
    data = log.data()
    for place, bits in changes:
        data = flipped(data, int(place * (len(data) - 1)), bits)
    data = data[: int(len(data) * min(1, kept * 2))]
    assert log.recovered(data, directory) == seen(data).commits


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Log, Path]]:
    directory = tmp_path_factory.mktemp("several")
    log = Log(directory, 6)
    yield log, directory
    log.connection.close()


class Counting(io.BytesIO):
    """Notes the largest piece that was asked for."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        self.largest = max(self.largest, size)
        return super().read(size)


def test_a_log_is_read_a_frame_at_a_time(log: Log) -> None:
    file = Counting(log.data())
    scan(file, PAGE)
    assert file.largest == SLOT


def test_a_log_of_pages_as_the_store_has_them_is_read(tmp_path: Path) -> None:
    path = tmp_path / "usual.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        for number in range(8):
            connection.execute(f"CREATE TABLE t{number} (a)")
        data = path.with_name("usual.db-wal").read_bytes()
    assert scan(io.BytesIO(data)) == Verdict("whole", 8, len(data))
    for position in random.Random(1).sample(range(len(data) // 2), 40):
        assert scan(io.BytesIO(flipped(data, position))).state == "damaged", position
