"""An LMDB file read page by page, without trusting a byte of it.

LMDB maps its file into memory and believes what stands there: a flipped page number, a loop of pages or a file cut
short ends the process with a signal. This reader follows the same pages (lmdb.h and mdb.c of LMDB 0.9, `MDB_page`,
`MDB_node`, `MDB_db`, `MDB_meta`) by `pread`, checks every field that steers LMDB and visits no page twice. What is
damaged becomes a sentence in `problems`, and the tree below it is left out.
"""

from __future__ import annotations

import operator
import os
import struct
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

_META = struct.Struct("=IIQQ")  # magic, version, address, map size
_META_END = struct.Struct("=QQ")  # last page, transaction
_TREE = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_PAGE = struct.Struct("=QHHHH")  # number, pad, flags, lower, upper
_OVERFLOW = struct.Struct("=QHHI")  # number, pad, flags, pages
_NODE = struct.Struct("=HHHH")  # size or page (low, high), flags, key size
_NUMBERED = np.dtype([("size", np.uint32), ("flags", np.uint16), ("key_size", np.uint16), ("key", np.uint64)])
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _LONG, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_ON_LONG_PAGES, _SUBTREE = 0x01, 0x02
_INTEGER_KEYS = 0x08
_EMPTY = 2**64 - 1
_DEEPEST = 32
_Found = TypeVar("_Found", bound=Sized)
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

    def order_of(self, key: bytes) -> Any:
        """What a key is ordered by: names by their bytes, ids and transactions by their number."""
        if self.name == "main":
            return key
        if len(key) != 8:
            raise _DamagedPage(f"a key of {len(key)} bytes")
        return int.from_bytes(key, "little" if self.name == "free" else "big")

    @classmethod
    def parse(cls, name: str, content: bytes) -> Tree:
        """Reads `MDB_db`."""
        _, flags, depth, branch, leaf, long_, entries, root = _TREE.unpack(content)
        return cls(name, flags, depth, (branch, leaf, long_), entries, root)


@dataclass(frozen=True)
class Entry:
    """A name of the main tree, and where in the file its value lies."""

    key: bytes
    is_tree: bool
    offset: int
    size: int


@dataclass(frozen=True)
class Leaf:
    """The entries of one leaf of another tree; there may be millions.

    Attributes:
        keys: `(n,) uint64` ids, or numbers of transactions.
        offsets: `(n,) int64` where in the file the values lie.
        sizes: `(n,) int64` their bytes.
    """

    keys: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self.keys)


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

    def value(self, offset: int, size: int) -> bytes:
        """The bytes of a value; none where the medium does not give them."""
        try:
            return self._bytes(offset, size)
        except _DamagedPage:
            return b""

    def tree(self, name: str, entry: Entry) -> list[Tree]:
        """The tree that an entry of the main tree holds; none where it is damaged."""
        content = self.value(entry.offset, entry.size)
        if len(content) != _TREE.size:
            self.problems.append(f"tree {name}: its entry has {len(content)} bytes")
            return []
        return [Tree.parse(name, content)]

    def names(self) -> list[Entry]:
        """The entries of the main tree, as far as they can be reached."""
        return [entry for leaf in self._read(self.main, self._entries) for entry in leaf]

    def leaves(self, tree: Tree) -> Iterator[Leaf]:
        """The entries of another tree in the order of their keys, as far as they can be reached."""
        return self._read(tree, self._leaf)

    def records(self, tree: Tree) -> Iterator[tuple[int, bytes]]:
        """Key and value of each of these entries."""
        for leaf in self.leaves(tree):
            for key, offset, size in zip(
                *(column.tolist() for column in (leaf.keys, leaf.offsets, leaf.sizes)), strict=True
            ):
                yield key, self.value(offset, size)

    def check_free(self) -> None:
        """Reads the list of free pages: a page that is in use must not be on it, or LMDB writes over it."""
        for _, content in list(self.records(self.free)):
            count = int.from_bytes(content[:8], "little") if len(content) >= 8 else -1
            if not 0 <= count <= len(content) // 8 - 1:
                self.problems.append(f"list of free pages: {count} pages in {len(content)} bytes")
                continue
            free = struct.unpack_from(f"={count}Q", content, 8)
            in_use = [page for page in free if page in self._seen or not 1 < page <= self.last_page]
            if in_use:
                self.problems.append(f"list of free pages: page {in_use[0]} is not free")
            self._seen.update(free)

    def _read(self, tree: Tree, read: Callable[..., _Found]) -> Iterator[_Found]:
        """What `read` makes of each leaf of a tree, and whether that is all there must be."""
        expected = _INTEGER_KEYS if tree.name == "free" else 0
        if tree.flags != expected or tree.depth > _DEEPEST:
            self.problems.append(f"tree {tree.name}: flags {tree.flags:#x}, depth {tree.depth}")
        if tree.root == _EMPTY:
            return
        pages, count, problems = [0, 0, 0], 0, len(self.problems)
        for page, content, lowest, beyond in self._walk(tree, tree.root, 1, None, None, pages):
            try:
                found = read(tree, page, content, lowest, beyond, pages)
            except _DamagedPage as damage:
                self.problems.append(f"tree {tree.name}, page {page}: {damage}")
                continue
            count += len(found)
            yield found
        if len(self.problems) == problems and (count, tuple(pages)) != (tree.entries, tree.pages):
            self.problems.append(f"tree {tree.name}: {count} of {tree.entries} entries, pages {pages}")

    def _walk(
        self, tree: Tree, page: int, depth: int, lowest: Any, beyond: Any, pages: list[int]
    ) -> Iterator[tuple[int, bytes, Any, Any]]:
        """Number and content of each leaf below a page, and the bounds of its keys, the upper one excluded."""
        try:
            content = self._visit(page)
            if leaf := depth == tree.depth:
                nodes, keys = [], []
            else:
                nodes = list(self._nodes(content, _BRANCH))
                keys = [tree.order_of(key) for *_, key, _ in nodes[1:]]  # the first key of a branch is left empty
                _check_order(keys, lowest, beyond)
        except _DamagedPage as damage:
            self.problems.append(f"tree {tree.name}, page {page}: {damage}")
            return
        pages[1 if leaf else 0] += 1
        if leaf:
            yield page, content, lowest, beyond
            return
        bounds = [lowest, *keys, beyond]
        for k, (low, high, flags, _, _) in enumerate(nodes):
            child = low | high << 16 | flags << 32
            yield from self._walk(tree, child, depth + 1, bounds[k], bounds[k + 1], pages)

    def _entries(
        self, tree: Tree, page: int, content: bytes, lowest: Any, beyond: Any, pages: list[int]
    ) -> list[Entry]:
        """The entries of a leaf of the main tree."""
        nodes = list(self._nodes(content, _LEAF))
        _check_order([key for *_, key, _ in nodes], lowest, beyond)
        entries = []
        for low, high, flags, key, at in nodes:
            size, offset = low | high << 16, page * self.page_size + at
            if flags == _ON_LONG_PAGES and at + 8 <= self.page_size:
                offset = self._long_value(offset, size, pages)
            elif at + size > self.page_size or flags not in (0, _SUBTREE):
                raise _DamagedPage(f"an entry of {size} bytes with flags {flags:#x}")
            entries.append(Entry(key, flags == _SUBTREE, offset, size))
        return entries

    def _leaf(self, tree: Tree, page: int, content: bytes, lowest: Any, beyond: Any, pages: list[int]) -> Leaf:
        """The entries of a leaf whose keys are numbers; those that are damaged are left out."""
        count, upper = self._node_count(content, _LEAF)
        at = np.frombuffer(content, np.uint16, count, 16).astype(np.int64)
        if at.min() < upper or at.max() > len(content) - _NUMBERED.itemsize:
            raise _DamagedPage("an entry beyond it")
        nodes = np.frombuffer(content, np.uint8)[at[:, None] + np.arange(_NUMBERED.itemsize)].view(_NUMBERED)[:, 0]
        keys = nodes["key"].astype(np.uint64) if tree.name == "free" else nodes["key"].byteswap().astype(np.uint64)
        if (nodes["key_size"] != 8).any():
            raise _DamagedPage("a key that is not 8 bytes long")
        _check_order(keys, lowest, beyond)
        sizes = nodes["size"].astype(np.int64)
        ends = np.where(long := nodes["flags"] == _ON_LONG_PAGES, 8, sizes) + at + _NUMBERED.itemsize
        sound = (long | (nodes["flags"] == 0)) & (ends <= self.page_size)
        for k in np.flatnonzero(~sound):
            self.problems.append(f"tree {tree.name}, page {page}: an entry of {sizes[k]} bytes reaches out of it")
        offsets = page * self.page_size + at + _NUMBERED.itemsize
        for k in np.flatnonzero(long & sound):
            try:
                offsets[k] = self._long_value(int(offsets[k]), int(sizes[k]), pages)
            except _DamagedPage as damage:
                self.problems.append(f"tree {tree.name}, page {page}: {damage}")
                sound[k] = False
        return Leaf(keys[sound], offsets[sound], sizes[sound])

    def _node_count(self, content: bytes, expected: int) -> tuple[int, int]:
        """How many nodes a page has, and where the first may begin."""
        _, _, flags, lower, upper = _PAGE.unpack_from(content)
        if flags != expected or not 16 <= lower <= upper <= len(content) or lower % 2:
            raise _DamagedPage(f"flags {flags:#x}, {lower} to {upper}")
        count = (lower - 16) // 2
        if count < (1 if expected == _LEAF else 2):
            raise _DamagedPage(f"{count} entries")
        return count, upper

    def _nodes(self, content: bytes, expected: int) -> Iterator[tuple[int, int, int, bytes, int]]:
        """The nodes of a page: size or child (low, high), flags, key, and where the value begins."""
        count, upper = self._node_count(content, expected)
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

    def _long_value(self, offset: int, size: int, pages: list[int]) -> int:
        """Where a value lies that has pages of its own, the first of which is named at an offset of the file."""
        start, count = int.from_bytes(self._bytes(offset, 8), "little"), -(-(16 + size) // self.page_size)
        _, _, flags, named = _OVERFLOW.unpack_from(self._visit(start, count))
        if (flags, named) != (_LONG, count):
            raise _DamagedPage(f"its value of {size} bytes on {named} pages with flags {flags:#x}")
        pages[2] += count
        return start * self.page_size + 16

    def _bytes(self, offset: int, size: int) -> bytes:
        try:
            content = os.pread(self._file, size, offset)
        except OSError as error:
            raise _DamagedPage(f"the medium can't read it ({error.strerror})") from error
        if len(content) < size:
            raise _DamagedPage("the file ends within it")
        return content


def _check_order(keys: Sequence[Any] | np.ndarray, lowest: Any, beyond: Any) -> None:
    """Keys must rise, from `lowest` up to `beyond`, that one excluded."""
    rising = (keys[:-1] < keys[1:]).all() if isinstance(keys, np.ndarray) else all(map(operator.lt, keys, keys[1:]))
    if not rising or (lowest is not None and keys[0] < lowest) or (beyond is not None and keys[-1] >= beyond):
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
