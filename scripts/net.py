#!/usr/bin/env python3
"""Free ports, and waiting for a server to answer.

    net.py ports N           N ports on 127.0.0.1, each with port + 10000 free as well; PGSTOW_PORTS=FROM-TO narrows them
    net.py wait URL SECONDS  until a GET of URL answers at all
    net.py post URL BODY     prints the answer, whatever its status
"""

import os
import random
import socket
import sys
import time
import urllib.error
import urllib.request


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count):
    """Below 18,000, and below 22,000 for who has been given ports of his own: with SeaweedFS's second port
    10,000 above, still below the range that the system hands out to outgoing connections."""
    low, high = map(int, os.environ.get("PGSTOW_PORTS", "10240-18000").split("-"))
    found = set()
    while len(found) < count:
        port = random.randrange(low, high)
        if is_free(port) and is_free(port + 10_000):
            found.add(port)
    return sorted(found)


# Straight to this machine, whatever proxy the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait(url, seconds):
    end = time.monotonic() + seconds
    while True:
        try:
            DIRECT.open(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"{url} did not answer within {seconds:g} s: {error}")
            time.sleep(0.1)


def post(url, body):
    try:
        return DIRECT.open(url, data=body.encode()).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ports", count]:
            print(*free_ports(int(count)))
        case ["wait", url, seconds]:
            wait(url, float(seconds))
        case ["post", url, body]:
            print(post(url, body))
        case _:
            sys.exit(__doc__)
