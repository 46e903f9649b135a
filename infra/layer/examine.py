"""Examines a layer without running it, so that one for another architecture can be examined too.

    examine.py LAYER.zip FOLDER      FOLDER: the layer, unpacked

Fails unless everything in it finds what it needs in the layer or in glibc, needs no newer glibc than
Lambda has, and is named in the notices with a licence whose text is there. Prints what it found.
"""

import os
import re
import struct
import sys
import zipfile

from elf import Elf, is_elf, number
from libraries import GLIBC, GLIBC_LIMIT, LIBRARIES

MIB = 1 << 20
# Lambda's: of a zip that is uploaded as such (a larger one goes by way of S3), and of all layers
# and the function together, unpacked.
DIRECT_UPLOAD, UNPACKED = 50, 250

problems = []


def problem(text):
    problems.append(text)


class Tree:
    def __init__(self, folder):
        # As the loader will see it.
        self.folder = os.path.realpath(folder)
        self.names = sorted(
            os.path.relpath(os.path.join(parent, name), self.folder)
            for parent, _, files in os.walk(self.folder)
            for name in files
        )
        self.elves = {}
        for name in self.names:
            if is_elf(self.path(name)):
                try:
                    self.elves[name] = Elf(self.path(name))
                except (struct.error, ValueError, IndexError):
                    problem(f"{name} is no whole ELF file")
        self._reached = {}

    def path(self, name):
        return os.path.join(self.folder, name)

    def name(self, path):
        return os.path.relpath(path, self.folder)

    def find(self, elf, library):
        for folder in elf.folders():
            name = self.name(os.path.join(folder, library))
            if name in self.elves:
                return name
        return None

    def reached(self, name):
        """The symbols of all that is loaded with it, itself included."""
        if name in self._reached:
            return self._reached[name]
        found, waiting = {}, [name]
        while waiting:
            at = waiting.pop()
            found[at] = self.elves[at].defined
            for library in self.elves[at].needed:
                if library in GLIBC:
                    continue
                other = self.find(self.elves[at], library)
                if other is None:
                    problem(f"{at} needs {library}, which is neither in the layer nor in glibc")
                elif other not in found:
                    waiting.append(other)
        self._reached[name] = set().union(*found.values())
        return self._reached[name]


def check_archive(archive):
    for entry in archive.infolist():
        mode = entry.external_attr >> 16
        if entry.date_time != (1980, 1, 1, 0, 0, 0):
            problem(f"{entry.filename} bears a date")
        if not entry.filename.startswith("pgsql/") or ".." in entry.filename:
            problem(f"{entry.filename} would be outside /opt/pgsql")
        if mode & 0o170000 not in (0o100000, 0o040000) or mode & 0o7022 or not mode & 0o444 == 0o444:
            problem(f"{entry.filename} has the mode {mode:o}")
    names = [entry.filename for entry in archive.infolist()]
    if names != sorted(set(names)):
        problem("the names in the zip are not sorted, or not unique")


def check_search_path(name, elf):
    if elf.runpath:
        problem(f"{name} has a RUNPATH, which LD_LIBRARY_PATH overrides")
    for folder in (elf.rpath or "").split(":"):
        if folder and not re.fullmatch(r"\$ORIGIN(/\.\.){0,2}(/lib)?", folder):
            problem(f"{name} looks for libraries in {folder}")


def check_symbols(tree, name):
    elf = tree.elves[name]
    there = [tree.reached(name)]
    module = re.fullmatch(r"pgsql/(\d+)/lib/(?!lib).*\.so|pgsql/(\d+)/lib/libpqwalreceiver\.so", name)
    if module:
        # The server, which loads it, is there already.
        there.append(tree.reached(f"pgsql/{module[1] or module[2]}/bin/postgres"))
    for file, versions in elf.wanted.items():
        if file in GLIBC:
            continue
        other = tree.find(elf, file)
        lacking = versions - tree.elves[other].versions if other else versions
        if lacking:
            problem(f"{name} wants {', '.join(sorted(lacking))} of {file}")
    of_glibc = set().union(*(versions for file, versions in elf.wanted.items() if file in GLIBC))
    for symbol, version in elf.undefined:
        if version in of_glibc or any((symbol, version) in defined for defined in there):
            continue
        if version is None and any(symbol == name for defined in there for name, _ in defined):
            continue
        problem(f"{name} wants the symbol {symbol}{'@' + version if version else ''}, which nothing has")


def check_versions(name, elf):
    highest = elf.highest("GLIBC")
    if highest and number(highest) > GLIBC_LIMIT:
        problem(f"{name} wants GLIBC_{highest}; Lambda has {'.'.join(map(str, GLIBC_LIMIT))}")
    # Not a number, and newer than all of them: what only a recent loader understands.
    for mark in set().union(*elf.wanted.values()):
        if mark.startswith("GLIBC_") and not number(mark.removeprefix("GLIBC_")):
            problem(f"{name} wants {mark}")
    for family in ("GLIBCXX", "CXXABI", "GCC"):
        if elf.highest(family):
            problem(f"{name} wants {family}_{elf.highest(family)}, and Lambda's base need not have that library")
    return highest or "none"


def read_notices(tree):
    """By file or folder: the columns of its line."""
    rows = {}
    for name in tree.names:
        if not re.fullmatch(r"pgsql/notices/\w+\.txt", name):
            continue
        with open(tree.path(name), encoding="utf-8") as file:
            for line in file:
                if line.startswith("pgsql/"):
                    columns = re.split(r"\s{2,}", line.strip())
                    if len(columns) != 5 or not all(columns):
                        problem(f"{name}: not five columns: {line.strip()}")
                        continue
                    rows[columns[0]] = columns[1:]
    return rows


def licence_text(what):
    of_libraries = {library.component.name: library.component.text for library in LIBRARIES.values()}
    return {"PostgreSQL": "postgresql.txt", "tzdata": "tzdata.txt", **of_libraries}[what] or "apache-2.0.txt"


def check_notices(tree, rows):
    for name in tree.names:
        if name.startswith("pgsql/notices/"):
            continue
        if not any(name == row or (row.endswith("/") and name.startswith(row)) for row in rows):
            problem(f"{name} is not in the notices")
    for row, (what, *_) in rows.items():
        if not any(name == row or name.startswith(row) for name in tree.names):
            problem(f"the notices name {row}, which is not there")
        text = f"pgsql/notices/licences/{licence_text(what)}"
        if text not in tree.names or os.path.getsize(tree.path(text)) < 100:
            problem(f"the licence of {what} is not in {text}")


def report(tree, rows, glibc):
    """One line a library or program of its own; a PostgreSQL's modules in one."""
    lines, modules = [], {}
    for name in tree.elves:
        what, version, licence, package = rows.get(name, ("?",) * 4)
        major = re.fullmatch(r"pgsql/(\d+)/lib/.*\.so", name)
        if major:
            modules.setdefault(major[1], []).append(name)
            continue
        lines.append((name, f"{what} {version}", licence, package, f"GLIBC_{glibc[name]}"))
    for major, names in modules.items():
        what, version, licence, package = rows[names[0]]
        newest = max((glibc[name] for name in names), key=number)
        lines.append(
            (f"pgsql/{major}/lib/*.so ({len(names)})", f"{what} {version}", licence, package, f"GLIBC_{newest}")
        )
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in sorted(lines):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main(path, folder):
    tree = Tree(folder)
    with zipfile.ZipFile(path) as archive:
        check_archive(archive)
        unpacked = sum(entry.file_size for entry in archive.infolist())
    machines = {elf.machine for elf in tree.elves.values()}
    if len(machines) != 1:
        problem(f"of one architecture, it should be: {', '.join(sorted(machines)) or 'none'}")
    glibc = {}
    for name, elf in tree.elves.items():
        check_search_path(name, elf)
        check_symbols(tree, name)
        glibc[name] = check_versions(name, elf)
        if elf.has_symtab:
            problem(f"{name} is not stripped")
        if not elf.can_be_mapped():
            problem(f"{name} has segments that cannot be mapped")
    rows = read_notices(tree)
    check_notices(tree, rows)
    if not problems:
        report(tree, rows, glibc)
    zipped = os.path.getsize(path)
    if unpacked > UNPACKED * MIB:
        problem(f"unpacked it has {unpacked / MIB:.1f} MiB; Lambda takes {UNPACKED}")
    upload = "fits a direct upload" if zipped <= DIRECT_UPLOAD * MIB else "goes by way of S3, being more than 50"
    print(f"  zip {zipped / MIB:.1f} MiB ({upload}), unpacked {unpacked / MIB:.1f} MiB of Lambda's {UNPACKED}")
    for text in sorted(set(problems)):
        print(f"  PROBLEM: {text}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
