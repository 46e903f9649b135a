"""A proxy between a client and the S3 server: counts requests, and what the server gives, headers
and all."""

import socket
import threading
from urllib.parse import urlsplit


class CountingProxy:
    def __init__(self, upstream):
        self.upstream = urlsplit(upstream)
        self.given = 0
        self.requests = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection((self.upstream.hostname, self.upstream.port))
            threading.Thread(target=self.pass_on, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, True), daemon=True).start()

    def pass_on(self, source, sink, counted):
        try:
            while data := source.recv(1 << 18):
                with self.lock:
                    if counted:
                        self.given += len(data)
                        # Every answer begins a packet of its own on this loopback.
                        self.requests += data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100")
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
