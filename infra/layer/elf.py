"""What the loader would read of an ELF file."""

import os
import struct
from functools import cached_property

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

MAGIC = b"\x7fELF"
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
LOCAL, WEAK = 0, 2


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


def number(version):
    """`2.34` → `(2, 34)`, so that 2.4 is older than 2.34."""
    return tuple(int(part) for part in version.split(".")) if version.replace(".", "").isdigit() else ()


class Elf:
    def __init__(self, path):
        self.path = path
        # By file: the versions of it that must be there.
        self.wanted = {}
        self.needed, self.rpath, self.runpath, self.soname = [], None, None, None
        with open(path, "rb") as file:
            self._read(ELFFile(file))

    def _read(self, elf):
        self.machine = elf["e_machine"]
        dynamic = elf.get_section_by_name(".dynamic")
        for tag in dynamic.iter_tags() if dynamic else ():
            match tag.entry.d_tag:
                case "DT_NEEDED":
                    self.needed.append(tag.needed)
                case "DT_RPATH":
                    self.rpath = tag.rpath
                case "DT_RUNPATH":
                    self.runpath = tag.runpath
                case "DT_SONAME":
                    self.soname = tag.soname
        sections = list(elf.iter_sections())
        self.has_symtab = any(section.name == ".symtab" or section.name.startswith(".debug") for section in sections)
        # What a symbol's version number stands for: those that are wanted, and those that are defined here.
        self._numbers = {}
        for section in sections:
            if isinstance(section, GNUVerNeedSection):
                for need, versions in section.iter_versions():
                    for version in versions:
                        self.wanted.setdefault(need.name, set()).add(version.name)
                        self._numbers[version["vna_other"]] = (version.name, need.name)
            elif isinstance(section, GNUVerDefSection):
                for definition, auxiliaries in section.iter_versions():
                    self._numbers[definition["vd_ndx"]] = (next(auxiliaries).name, None)
        self._raw = [elf.get_section_by_name(name) for name in (".dynsym", ".dynstr", ".gnu.version")]
        self._raw = [section.data() if section else b"" for section in self._raw]

    @cached_property
    def _symbols(self):
        """(defined, undefined), each a set of (name, version). By hand: a library has thousands."""
        table, strings, versions = self._raw
        numbers = [number for (number,) in struct.iter_unpack("<H", versions)]
        defined, undefined = set(), set()
        for index, (name, info, _, section, _, _) in enumerate(struct.iter_unpack("<IBBHQQ", table)):
            binding = info >> 4
            if not name or binding == LOCAL:
                continue
            text = strings[name : strings.index(b"\0", name)].decode()
            # The highest bit says that it is not the default version.
            number = numbers[index] & 0x7FFF if numbers else 1
            version = self._numbers.get(number, (None, None))[0] if number > 1 else None
            if section:
                defined.add((text, version))
            elif binding != WEAK:
                undefined.add((text, version))
        return defined, undefined

    @property
    def defined(self):
        return self._symbols[0]

    @property
    def undefined(self):
        """What must be found elsewhere."""
        return self._symbols[1]

    @cached_property
    def versions(self):
        """The versions that are defined here."""
        return {version for version, file in self._numbers.values() if file is None}

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
