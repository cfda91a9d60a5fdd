"""Small servers as a project would write them, and the file that says which version they are."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

NODE_HTTP = """
const http = require('http');
const fs = require('fs');
const version = fs.readFileSync('version', 'utf8').trim();
http.createServer((request, response) => {
  const answer = () => { response.setHeader('Content-Length', version.length); response.end(version); };
  if (request.url === '/slow') setTimeout(answer, 300); else answer();
}).listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listening'));
"""

PATIENT_NODE = NODE_HTTP.replace("createServer(", "createServer({ keepAliveTimeout: 100000 }, ")
"""By itself Node closes a connection that was idle for five seconds, in whatever moment the next request comes."""

NODE_FD = """
const http = require('http');
const fs = require('fs');
const version = fs.readFileSync('version', 'utf8').trim();
let leaving = false;
const server = http.createServer((request, response) => {
  if (leaving) response.shouldKeepAlive = false;
  const answer = () => { response.setHeader('Content-Length', version.length); response.end(version); };
  if (request.url === '/slow') setTimeout(answer, 300); else answer();
}).listen({ fd: Number(process.env.HOMEPORT_FD) });
process.on('SIGTERM', () => {
  leaving = true;
  server._handle.close();
  setInterval(() => server.getConnections((_, n) => { if (!n) process.exit(0); }), 20);
  setTimeout(() => process.exit(0), 2000);
});
"""

PYTHON_HTTP = """
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
version = open('version').read().strip().encode()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/slow':
            time.sleep(0.3)
        self.send_response(200)
        self.send_header('Content-Length', str(len(version)))
        self.end_headers()
        self.wfile.write(version)
    def log_message(self, *args):
        pass
ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
"""

PYTHON_ASYNC = """
import asyncio, os
version = open('version').read().strip()
async def serve(reader, writer):
    try:
        while (head := await reader.readuntil(b'\\r\\n\\r\\n')):
            if b'/slow' in head:
                await asyncio.sleep(0.3)
            writer.write(f'HTTP/1.1 200 OK\\r\\nContent-Length: {len(version)}\\r\\n'
                         f'Connection: close\\r\\n\\r\\n{version}'.encode())
            await writer.drain()
            break
    except asyncio.IncompleteReadError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', int(os.environ['PORT']))
    async with server:
        await server.serve_forever()
asyncio.run(main())
"""

PYTHON_LISTEN_FDS = """
import asyncio, os, signal, socket
version = open('version').read().strip()
assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1', dict(os.environ)
busy = set()
async def serve(reader, writer):
    busy.add(asyncio.current_task())
    head = await reader.readuntil(b'\\r\\n\\r\\n')
    if b'/slow' in head:
        await asyncio.sleep(0.3)
    writer.write(f'HTTP/1.1 200 OK\\r\\nContent-Length: {len(version)}\\r\\n'
                 f'Connection: close\\r\\n\\r\\n{version}'.encode())
    await writer.drain()
    writer.close()
    busy.discard(asyncio.current_task())
async def main():
    server = await asyncio.start_server(serve, sock=socket.socket(fileno=3))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    for _ in range(20):
        await asyncio.sleep(0)  # what was accepted becomes busy some turns later, however long they take
    while busy:
        await asyncio.sleep(0.02)
asyncio.run(main())
"""


def write(folder: Path, version: str = "one") -> None:
    """All of them into a folder, at that version."""
    for name, text in (("web.js", NODE_HTTP), ("fd.js", NODE_FD), ("web.py", PYTHON_HTTP), ("loop.py", PYTHON_ASYNC),
                       ("fds.py", PYTHON_LISTEN_FDS)):  # fmt: skip
        (folder / name).write_text(text)
    (folder / "version").write_text(version)


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


def python() -> str:
    return sys.executable
