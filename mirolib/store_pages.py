"""An LMDB file read page by page, without trusting a byte of it.

LMDB maps its file into memory and believes what stands there: a flipped page number, a loop of pages or a file cut
short ends the process with a signal. This reader follows the same pages (lmdb.h and mdb.c of LMDB 0.9, `MDB_page`,
`MDB_node`, `MDB_db`, `MDB_meta`) by `pread`, checks every field that steers LMDB and visits no page twice. What is
damaged becomes a sentence in `problems`, and the tree below it is left out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_META = struct.Struct("=IIQQ")  # magic, version, address, map size
_META_END = struct.Struct("=QQ")  # last page, transaction
_TREE = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("=QHHHH")  # number, pad, flags, lower, upper
_OVERFLOW = struct.Struct("=QHHI")  # number, pad, flags, pages
_NODE = struct.Struct("=HHHH")  # size or page (low, high), flags, key size
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _LONG, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_ON_LONG_PAGES, _SUBTREE = 0x01, 0x02
_INTEGER_KEYS = 0x08
_EMPTY = 2**64 - 1
_DEEPEST = 32
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))


class _DamagedPage(Exception):
    """A page that can't be what the tree says it is."""


@dataclass(frozen=True)
class Tree:
    """One B-tree of the file: its root, and what it must come to."""

    name: str
    flags: int
    depth: int
    pages: tuple[int, int, int]
    entries: int
    root: int

    @classmethod
    def parse(cls, name: str, content: bytes) -> Tree:
        """Reads `MDB_db`."""
        _, flags, depth, branch, leaf, long_, entries, root = _TREE.unpack(content)
        return cls(name, flags, depth, (branch, leaf, long_), entries, root)


class Entry(NamedTuple):
    """One key and where in the file its value lies; there may be millions."""

    key: bytes
    is_tree: bool
    offset: int
    size: int


class Snapshot:
    """One committed state of an LMDB file.

    Attributes:
        transaction: Number of the transaction that committed it.
        slot: Which of the two meta pages describes it.
        page_size: Bytes of a page.
        problems: What was found damaged so far, a sentence each.
    """

    def __init__(self, file: int, page_size: int, slot: int) -> None:
        """Reads a meta page.

        Args:
            file: Descriptor of the open file.
            page_size: Bytes of a page.
            slot: 0 or 1.

        Raises:
            ValueError: If there is no meta page.
        """
        self.slot, self.page_size = slot, page_size
        self.problems: list[str] = []
        self._file = file
        self._file_pages = os.fstat(file).st_size // page_size
        self._seen: set[int] = {0, 1}
        meta = self._bytes(slot * page_size, 16 + _META.size + 2 * _TREE.size + _META_END.size)
        number, _, flags, *_ = _PAGE.unpack_from(meta)
        magic, version, *_ = _META.unpack_from(meta, 16)
        if (number, flags, magic, version) != (slot, _META_PAGE, _MAGIC, _VERSION):
            raise ValueError("no meta page")
        at = 16 + _META.size
        if _TREE.unpack_from(meta, at)[0] != page_size:
            raise ValueError("another page size")
        self.free = Tree.parse("free", meta[at : at + _TREE.size])
        self.main = Tree.parse("main", meta[at + _TREE.size : at + 2 * _TREE.size])
        self.last_page, self.transaction = _META_END.unpack_from(meta, at + 2 * _TREE.size)

    def value(self, entry: Entry) -> bytes:
        """The bytes of an entry's value; fewer where the medium does not give them."""
        try:
            return self._bytes(entry.offset, entry.size)
        except _DamagedPage:
            return b""

    def tree(self, name: str, entry: Entry) -> list[Tree]:
        """The tree that an entry of the main tree holds; none where it is damaged."""
        content = self.value(entry)
        if len(content) != _TREE.size:
            self.problems.append(f"tree {name}: its entry has {len(content)} bytes")
            return []
        return [Tree.parse(name, content)]

    def entries(self, tree: Tree) -> Iterator[Entry]:
        """The entries of a tree in the order of their keys, as far as they can be reached."""
        expected = _INTEGER_KEYS if tree.name == "free" else 0
        if tree.flags != expected or tree.depth > _DEEPEST:
            self.problems.append(f"tree {tree.name}: flags {tree.flags:#x}, depth {tree.depth}")
        if tree.root == _EMPTY:
            return
        pages, found, problems = [0, 0, 0], 0, len(self.problems)
        for leaf in self._leaves(tree, tree.root, 1, None, None, pages):
            found += len(leaf)
            yield from leaf
        if len(self.problems) == problems and (found, tuple(pages)) != (tree.entries, tree.pages):
            self.problems.append(f"tree {tree.name}: {found} of {tree.entries} entries, pages {pages}")

    def check_free(self) -> None:
        """Reads the list of free pages: a page that is in use must not be on it, or LMDB writes over it."""
        for entry in list(self.entries(self.free)):
            content = self.value(entry)
            count = int.from_bytes(content[:8], "little") if len(content) >= 8 else -1
            if not 0 <= count <= len(content) // 8 - 1:
                self.problems.append(f"list of free pages: {count} pages in {len(content)} bytes")
                continue
            free = struct.unpack_from(f"={count}Q", content, 8)
            in_use = [page for page in free if page in self._seen or not 1 < page <= self.last_page]
            if in_use:
                self.problems.append(f"list of free pages: page {in_use[0]} is not free")
            self._seen.update(free)

    def _leaves(
        self, tree: Tree, page: int, depth: int, lowest: bytes | None, beyond: bytes | None, pages: list[int]
    ) -> Iterator[list[Entry]]:
        """The entries of each leaf below a page; keys must lie from `lowest` up to `beyond`, that one excluded."""
        try:
            content = self._visit(page)
            leaf = depth == tree.depth
            nodes = list(self._nodes(content, _LEAF if leaf else _BRANCH))
            keys = [key for *_, key, _ in nodes]
            if not leaf:
                keys = keys[1:]  # the first key of a branch is left empty
            _check_order(keys, lowest, beyond, tree.name == "free")
        except _DamagedPage as damage:
            self.problems.append(f"tree {tree.name}, page {page}: {damage}")
            return
        pages[1 if leaf else 0] += 1
        if leaf:
            yield self._leaf(tree, page, nodes, pages)
            return
        bounds = [lowest, *keys, beyond]
        for k, (low, high, flags, _, _) in enumerate(nodes):
            child = low | high << 16 | flags << 32
            yield from self._leaves(tree, child, depth + 1, bounds[k], bounds[k + 1], pages)

    def _leaf(self, tree: Tree, page: int, nodes: list[tuple], pages: list[int]) -> list[Entry]:
        """The entries of a leaf."""
        entries = []
        for low, high, flags, key, at in nodes:
            size, offset = low | high << 16, page * self.page_size + at
            try:
                if tree.name != "main" and len(key) != 8:
                    raise _DamagedPage(f"a key of {len(key)} bytes")
                if flags == _ON_LONG_PAGES and at + 8 <= self.page_size:
                    start = int.from_bytes(self._bytes(offset, 8), "little")
                    pages[2] += self._visit_long(start, size)
                    offset = start * self.page_size + 16
                elif at + size > self.page_size or flags not in (0, _SUBTREE):
                    raise _DamagedPage(f"an entry of {size} bytes with flags {flags:#x}")
            except _DamagedPage as damage:
                self.problems.append(f"tree {tree.name}, page {page}: {damage}")
                continue
            entries.append(Entry(key, flags == _SUBTREE, offset, size))
        return entries

    def _nodes(self, content: bytes, expected: int) -> Iterator[tuple[int, int, int, bytes, int]]:
        """The nodes of a page: size or child (low, high), flags, key, and where the value begins."""
        _, _, flags, lower, upper = _PAGE.unpack_from(content)
        if flags != expected or not 16 <= lower <= upper <= len(content) or lower % 2:
            raise _DamagedPage(f"flags {flags:#x}, {lower} to {upper}")
        count = (lower - 16) // 2
        if count < (1 if expected == _LEAF else 2):
            raise _DamagedPage(f"{count} entries")
        for pointer in struct.unpack_from(f"={count}H", content, 16):
            if not upper <= pointer <= len(content) - _NODE.size:
                raise _DamagedPage(f"an entry at {pointer}")
            low, high, flags, key_size = _NODE.unpack_from(content, pointer)
            end = pointer + _NODE.size + key_size
            if end > len(content):
                raise _DamagedPage(f"a key of {key_size} bytes")
            yield low, high, flags, content[pointer + _NODE.size : end], end

    def _visit(self, page: int, count: int = 1) -> bytes:
        """The content of a page that no tree has led to before, the first of `count`."""
        if not 1 < page <= self.last_page or page + count - 1 > self.last_page:
            raise _DamagedPage("there is no such page")
        if page + count > self._file_pages:
            raise _DamagedPage("the file ends before it")
        if not self._seen.isdisjoint(range(page, page + count)):
            raise _DamagedPage("it belongs elsewhere")
        self._seen.update(range(page, page + count))
        content = self._bytes(page * self.page_size, self.page_size if count == 1 else 16)
        if int.from_bytes(content[:8], "little") != page:
            raise _DamagedPage("it bears another number")
        return content

    def _visit_long(self, start: int, size: int) -> int:
        """Checks the pages of a value too long for a leaf; how many they are."""
        count = -(-(16 + size) // self.page_size)
        content = self._visit(start, count)
        _, _, flags, pages = _OVERFLOW.unpack_from(content)
        if (flags, pages) != (_LONG, count):
            raise _DamagedPage(f"its value of {size} bytes on {pages} pages with flags {flags:#x}")
        return count

    def _bytes(self, offset: int, size: int) -> bytes:
        try:
            content = os.pread(self._file, size, offset)
        except OSError as error:
            raise _DamagedPage(f"the medium can't read it ({error.strerror})") from error
        if len(content) < size:
            raise _DamagedPage("the file ends within it")
        return content


def _check_order(keys: list[bytes], lowest: bytes | None, beyond: bytes | None, integers: bool) -> None:
    """Keys must rise, from `lowest` up to `beyond`."""
    chain = [key for key in (lowest, *keys, beyond) if key is not None]
    if integers:
        chain = [key[::-1] for key in chain]
    first_may_equal = lowest is not None and bool(keys) and keys[0] == lowest
    if any(a >= b for a, b in zip(chain[first_may_equal:], chain[1 + first_may_equal :], strict=False)):
        raise _DamagedPage("its keys are out of order")


def snapshots(file: int) -> list[Snapshot]:
    """The committed states that an LMDB file describes, newest first: two, the last and the one before.

    Args:
        file: Descriptor of the open file.
    """
    found = []
    for page_size in _PAGE_SIZES:
        for slot in (0, 1):
            try:
                found.append(Snapshot(file, page_size, slot))
            except (ValueError, _DamagedPage, struct.error):
                continue
        if found:
            break
    return sorted(found, key=lambda snapshot: -snapshot.transaction)
