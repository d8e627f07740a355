"""What stands in a write-ahead log of SQLite, read before SQLite does: opening a database drops, without a word, all
that follows the first frame that is not right.

Pure: a readable file goes in, a verdict comes out. The format is that of https://www.sqlite.org/fileformat2.html, "The
Write-Ahead Log": a header of 32 bytes, then frames of 24 bytes and a page. Every frame carries the header's two salts
and a checksum that goes on from the frame before it, so all that is written since the log began anew is one chain;
frames with other salts are left from before, and are whole in the database. A frame that ends a transaction bears the
size of the database.

What follows the last whole commit is a **torn tail** as long as one transaction explains it. With every commit synced,
the next transaction begins only when the one before it is on the disk; so a loss of power leaves at most one
transaction in pieces, of which any frame may have come through, the committing one included, and nobody was told of it.
It is **damage** where a later transaction began behind the first wrong frame: by then, the one in which that frame
stands had been acknowledged. Two things show it: a frame marked as a commit whose stored checksum the next frame goes
on from, or two whole commits. Frames that a failed write left do not: they bear the same salts and go on from each
other, but their commit was never written. A header that is wrong, with frames behind it that go on from each other, is
damage too: the header is synced before the first frame is written. Where commits are not synced (`process`), a loss of
power may leave the same picture; what was acknowledged is lost then as well. Damage in the last transaction cannot be
told from a torn tail.
"""

from collections.abc import Iterator
from struct import Struct as Layout
from struct import unpack
from typing import BinaryIO, Literal, NamedTuple

from msgspec import Struct

HEADER = Layout(">8I")
FRAME = Layout(">6I")
MAGIC = 0x377F0682
"""Its last bit is set where checksums read words with the high byte first."""

VERSION = 3007000
PAGE = 4096
"""The bytes of a page of the store."""

Sums = tuple[int, int]


class Verdict(Struct, frozen=True):
    """What a log holds.

    state    whole; torn: what follows the last whole commit is cut off, and nobody was told of it;
             damaged: what was acknowledged is lost
    commits  transactions that are whole, from the start on
    end      the byte behind the last of them
    tail     bytes from there on that belong to no whole transaction, or that are lost
    lost     whole commits that were seen behind the damage, 0 where not damaged
    """

    state: Literal["whole", "torn", "damaged"]
    commits: int
    end: int
    tail: int = 0
    lost: int = 0

    def damage_of(self, path: object) -> str:
        """What to tell of the damaged log of a store."""
        return (
            f"the log of the ledger {path} is damaged behind its first {self.commits} transactions, and what came "
            "after them was acknowledged and is lost: nothing is written until `llmd ledger accept-loss`"
        )


class _Frame(NamedTuple):
    """What stands where a frame should: up to `end`, short where the file ends in it."""

    end: int
    head: bytes
    page: bytes
    number: int
    commits: bool
    sums: Sums

    def goes_on(self, sums: Sums, big: bool) -> bool:
        """Whether it was written behind a frame of that checksum."""
        return self.number > 0 and checksum(self.head[:8] + self.page, sums, big) == self.sums


def scan(file: BinaryIO, usual: int = PAGE) -> Verdict:
    """Read a log from where `file` stands to its end, a frame at a time; pages are of `usual` bytes where the header
    cannot be believed. Raises OSError.
    """
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        return Verdict("torn" if head else "whole", 0, 0, len(head))
    magic, version, page, _, _, _, *sums = HEADER.unpack(head)
    big = bool(magic & 1)
    right = magic | 1 == MAGIC | 1 and version == VERSION and 512 <= page <= 65536 and page & (page - 1) == 0
    if right and checksum(head[:24], (0, 0), big) == (sums[0], sums[1]):
        return _with_header(_frames(file, page), head[16:24], (sums[0], sums[1]), big)
    return _without_header(_frames(file, usual), (sums[0], sums[1]))


def checksum(data: bytes, sums: Sums, big: bool) -> Sums:
    """SQLite's running sum over pairs of 32-bit words; `big` where the high byte of a word comes first."""
    one, two = sums
    words = iter(unpack(f"{'>' if big else '<'}{len(data) // 4}I", data))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def _frames(file: BinaryIO, page: int) -> Iterator[_Frame]:
    end = HEADER.size
    while data := file.read(FRAME.size + page):
        end += len(data)
        number, size, _, _, *sums = FRAME.unpack(data[: FRAME.size].ljust(FRAME.size, b"\0"))
        # One that the file ends in goes on from nothing.
        number = number if len(data) == FRAME.size + page else 0
        yield _Frame(end, data[: FRAME.size], data[FRAME.size :], number, size > 0, (sums[0], sums[1]))


def _with_header(frames: Iterator[_Frame], salts: bytes, sums: Sums, big: bool) -> Verdict:
    commits, end, last = 0, HEADER.size, HEADER.size
    right, lost = True, 0
    acknowledged, ended = False, False
    for frame in frames:
        own = salts.startswith(frame.head[8:16])
        chained = own and frame.goes_on(sums, big)
        right = right and chained
        if right and frame.commits:
            commits, end = commits + 1, frame.end
        elif chained and not right:
            acknowledged = acknowledged or ended
            lost += frame.commits
        if own:
            last = frame.end
        sums, ended = frame.sums, frame.commits
    damaged = acknowledged or lost > 1
    state: Literal["whole", "torn", "damaged"] = "damaged" if damaged else "torn" if last > end else "whole"
    return Verdict(state, commits, end, last - end if last > end else 0, lost if damaged else 0)


def _without_header(frames: Iterator[_Frame], sums: Sums) -> Verdict:
    end, lost, damaged = HEADER.size, 0, False
    for frame in frames:
        if frame.goes_on(sums, False) or frame.goes_on(sums, True):
            damaged = True
            lost += frame.commits
        end, sums = frame.end, frame.sums
    return Verdict("damaged" if damaged else "torn", 0, 0, end, lost)
