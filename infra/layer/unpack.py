"""Unpacks a layer into the present folder, modes included.

    unpack.py LAYER.zip

Layers may hold the same file: Lambda lays one over the other. Then both must hold the same bytes.
"""

import os
import sys
import zipfile


def unpack(path):
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                os.makedirs(entry.filename, exist_ok=True)
                continue
            content = archive.read(entry)
            if os.path.exists(entry.filename):
                with open(entry.filename, "rb") as file:
                    if file.read() != content:
                        sys.exit(f"unpack.py: two layers differ in {entry.filename}")
            with open(entry.filename, "wb") as file:
                file.write(content)
            os.chmod(entry.filename, entry.external_attr >> 16 & 0o777)


if __name__ == "__main__":
    unpack(sys.argv[1])
