"""Packs a folder into a zip whose bytes depend on names, contents and modes alone.

    pack.py FOLDER OUT.zip

Sorted names, one date, no owner, one way of compression. (The compressed bytes are zlib's: another
zlib than the usual one may pack the same contents into other bytes.)
"""

import os
import stat
import sys
import zipfile

# The earliest that a zip can say.
DATE = (1980, 1, 1, 0, 0, 0)
UNIX = 3


def names(folder):
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            yield os.path.relpath(path, folder) + ("/" if os.path.isdir(path) else "")


def pack(folder, out):
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(names(folder)):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                sys.exit(f"pack.py: {name} is a symbolic link")
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = UNIX
            if name.endswith("/"):
                entry.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10
                archive.writestr(entry, b"", zipfile.ZIP_STORED)
                continue
            mode = 0o755 if os.stat(path).st_mode & stat.S_IXUSR else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            with open(path, "rb") as file:
                # zlib's own default: its highest level takes three times as long, and saves 0.3 %.
                archive.writestr(entry, file.read(), zipfile.ZIP_DEFLATED, 6)


if __name__ == "__main__":
    pack(*sys.argv[1:])
