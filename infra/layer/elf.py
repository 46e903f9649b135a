"""What the loader reads of an ELF file: the 64-bit little-endian kind, which both of Lambda's
architectures use. The layouts are those of elf.h."""

import os
import struct
from functools import cached_property

MAGIC = b"\x7fELF\x02\x01"
MACHINES = {62: "x86_64", 183: "aarch64"}

SYMTAB, DYNAMIC, DYNSYM = 2, 6, 11
VERSIONS_DEFINED, VERSIONS_NEEDED, VERSIONS_OF_SYMBOLS = 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
NEEDED, SONAME, RPATH, RUNPATH = 1, 14, 15, 29
LOAD = 1
LOCAL, WEAK = 0, 2


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def number(version):
    """`2.34` → `(2, 34)`, so that 2.4 is older than 2.34; `()` for what is no number."""
    return tuple(int(part) for part in version.split(".")) if version.replace(".", "").isdigit() else ()


class Elf:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self._content = file.read()
        (machine,) = struct.unpack_from("<H", self._content, 18)
        self.machine = MACHINES.get(machine, str(machine))
        (at,) = struct.unpack_from("<Q", self._content, 40)
        size, count, names = struct.unpack_from("<HHH", self._content, 58)
        # By type: offset, size, and the section with the strings. A type that we look for is there once.
        headers = [struct.unpack_from("<IIQQQQIIQQ", self._content, at + index * size) for index in range(count)]
        self._strings_at = [header[4] for header in headers]
        self._sections = {header[1]: (header[4], header[5], header[6]) for header in headers}
        named = [self._text(names, header[0]) for header in headers]
        self.has_symtab = SYMTAB in self._sections or any(name.startswith(".debug") for name in named)
        self._read_dynamic()
        self._read_versions()

    def _text(self, section, at):
        start = self._strings_at[section] + at
        return self._content[start : self._content.index(b"\0", start)].decode()

    def _read_dynamic(self):
        self.needed, self.rpath, self.runpath, self.soname = [], None, None, None
        at, size, strings = self._sections.get(DYNAMIC, (0, 0, 0))
        for tag, value in struct.iter_unpack("<qQ", self._content[at : at + size]):
            if tag == NEEDED:
                self.needed.append(self._text(strings, value))
            elif tag == SONAME:
                self.soname = self._text(strings, value)
            elif tag == RPATH:
                self.rpath = self._text(strings, value)
            elif tag == RUNPATH:
                self.runpath = self._text(strings, value)

    def _read_versions(self):
        # By file: the versions of it that must be there. And those that are defined here.
        self.wanted, self.versions = {}, set()
        # What the number of a symbol's version stands for.
        self._numbers = {}
        at, size, strings = self._sections.get(VERSIONS_NEEDED, (0, 0, 0))
        while size:
            _, count, file, auxiliary, following = struct.unpack_from("<HHIII", self._content, at)
            entry = at + auxiliary
            for _ in range(count):
                _, _, other, name, step = struct.unpack_from("<IHHII", self._content, entry)
                version = self._text(strings, name)
                self.wanted.setdefault(self._text(strings, file), set()).add(version)
                self._numbers[other] = version
                entry += step
            at += following
            if not following:
                break
        at, size, strings = self._sections.get(VERSIONS_DEFINED, (0, 0, 0))
        while size:
            _, _, index, _, _, auxiliary, following = struct.unpack_from("<HHHHIII", self._content, at)
            (name,) = struct.unpack_from("<I", self._content, at + auxiliary)
            self._numbers[index] = self._text(strings, name)
            self.versions.add(self._numbers[index])
            at += following
            if not following:
                break

    @cached_property
    def _symbols(self):
        """(defined, undefined), each a set of (name, version)."""
        defined, undefined = set(), set()
        at, size, strings = self._sections.get(DYNSYM, (0, 0, 0))
        numbers_at, numbers_size, _ = self._sections.get(VERSIONS_OF_SYMBOLS, (0, 0, 0))
        numbers = [number for (number,) in struct.iter_unpack("<H", self._content[numbers_at:][:numbers_size])]
        for index, symbol in enumerate(struct.iter_unpack("<IBBHQQ", self._content[at : at + size])):
            name, info, _, section = symbol[:4]
            binding = info >> 4
            if not name or binding == LOCAL:
                continue
            # The highest bit says that it is not the default version; 0 and 1 are none.
            number = numbers[index] & 0x7FFF if numbers else 1
            entry = (self._text(strings, name), self._numbers.get(number) if number > 1 else None)
            if section:
                defined.add(entry)
            elif binding != WEAK:
                undefined.add(entry)
        return defined, undefined

    @property
    def defined(self):
        return self._symbols[0]

    @property
    def undefined(self):
        """What must be found elsewhere."""
        return self._symbols[1]

    def highest(self, family):
        """The highest version of `GLIBC`, `GLIBCXX` and so on that it wants, or `None`."""
        marks = {version for versions in self.wanted.values() for version in versions}
        found = [mark.removeprefix(family + "_") for mark in marks if mark.startswith(family + "_")]
        return max(found, key=number, default=None)

    def folders(self):
        """Where the loader looks for what it needs, before it looks anywhere else."""
        origin = os.path.dirname(self.path)
        path = self.runpath or self.rpath or ""
        return [os.path.normpath(folder.replace("$ORIGIN", origin)) for folder in path.split(":") if folder]

    def can_be_mapped(self):
        """Whether its segments lie so that the kernel and the loader can map them, one after the other."""
        (at,) = struct.unpack_from("<Q", self._content, 32)
        size, count = struct.unpack_from("<HH", self._content, 54)
        end = 0
        for index in range(count):
            kind, _, offset, address, _, in_file, in_memory, alignment = struct.unpack_from(
                "<IIQQQQQQ", self._content, at + index * size
            )
            if kind != LOAD:
                continue
            if alignment and (offset - address) % alignment or address < end or offset + in_file > len(self._content):
                return False
            end = address + in_memory
        return end > 0
