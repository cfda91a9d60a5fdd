// Loaded before an unmodified Node program (NODE_OPTIONS=--require): what listens on a port that the supervisor
// holds gets the inherited socket instead. When its line ends the door is closed, running requests end,
// kept-alive connections are told to close, and `drained` is said when the last connection has gone.
'use strict';

const net = require('net');
const fs = require('fs');

const IDLE_AFTER = 3000; // ms until kept-alive connections without a request are closed
const LOOK_EVERY = 100; // ms

const words = (process.env.HOMEPORT_SHIM || '').split(' ').filter(Boolean);

function isSocket(fd, inode) {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`) === `socket:[${inode}]`;
  } catch {
    return false;
  }
}

if (words.length > 1) {
  const [controlFd, controlInode] = words[0].split(':');
  const held = new Map();
  for (const word of words.slice(1)) {
    const [, name, first, last, inode] = /^(.+)=(\d+)-(\d+):(\d+)$/.exec(word) || [];
    if (name) held.set(name, { next: Number(first), last: Number(last), inode });
  }

  // Each listen takes the next copy: closing a server destroys the one it had.
  function take(name) {
    const entry = held.get(name);
    while (entry && entry.next <= entry.last) {
      const fd = entry.next++;
      if (isSocket(fd, entry.inode)) return fd;
    }
    return undefined;
  }

  function nameOf(args) {
    let [first] = args;
    if (Array.isArray(first)) [first] = first;
    if (first !== null && typeof first === 'object') {
      if (first._handle || typeof first.fd === 'number') return undefined;
      if (typeof first.path === 'string') return `u:${Buffer.from(first.path).toString('hex')}`;
      first = first.port;
    }
    if (typeof first === 'string' && Number.isNaN(Number(first))) return `u:${Buffer.from(first).toString('hex')}`;
    if (first === undefined || first === null || first === '') return undefined;
    return String(Number(first));
  }

  const servers = new Set();
  const responses = new Set();
  let control;
  let draining = false;

  function say(line) {
    if (!control && isSocket(controlFd, controlInode)) {
      try {
        control = new net.Socket({ fd: Number(controlFd), readable: true, writable: true, allowHalfOpen: true });
        control.on('error', () => {});
        control.resume();
        // Its end means drain, and every process that shares it sees it; unless nobody is there to be answered.
        control.once('end', () => {
          control.write(`ending ${process.pid}\n`, (error) => (error ? drainOnSignal() : drain()));
        });
        control.unref();
      } catch {
        control = undefined;
      }
    }
    if (control && !control.destroyed) control.write(`${line}\n`, () => {});
  }

  // A worker that comes up after the others were told to leave must not open the door again: it is signalled any
  // moment, and what it took would be cut off. Nothing is ever sent on the line, so that all there is to read is its end.
  function ended() {
    if (!control || control.destroyed) return false;
    try {
      return fs.readSync(Number(controlFd), Buffer.alloc(1)) === 0;
    } catch {
      return false;
    }
  }

  // Supervisor and keeper were killed together: nobody can say `drain` any more, so the signal means it.
  function drainOnSignal() {
    const onTerm = () => {
      drain(() => {
        process.removeListener('SIGTERM', onTerm);
        if (process.listenerCount('SIGTERM') === 0) process.kill(process.pid, 'SIGTERM');
      });
    };
    process.on('SIGTERM', onTerm);
  }

  function drain(then) {
    if (draining) return;
    draining = true;
    for (const server of servers) {
      if (server._handle) {
        server._handle.close();
        server._handle = null;
      }
      if (server.homeportSessions) for (const session of server.homeportSessions) session.close();
    }
    for (const response of responses) if (!response.headersSent) response.shouldKeepAlive = false;
    say(`draining ${process.pid}`);
    const began = Date.now();
    const timer = setInterval(() => {
      if (Date.now() - began > IDLE_AFTER) {
        // After what has come in by now was read: a connection whose request waits in it is not idle.
        setImmediate(() => {
          for (const server of servers) if (server.closeIdleConnections) server.closeIdleConnections();
        });
      }
      if ([...servers].some((server) => server._connections > 0)) return;
      clearInterval(timer);
      say(`drained ${process.pid}`);
      if (then) then();
    }, LOOK_EVERY);
  }

  function follow(server, name) {
    servers.add(server);
    server.prependListener('request', (request, response) => {
      responses.add(response);
      response.once('close', () => responses.delete(response));
      if (draining && 'shouldKeepAlive' in response) response.shouldKeepAlive = false;
    });
    server.prependListener('session', (session) => {
      server.homeportSessions = server.homeportSessions || new Set();
      server.homeportSessions.add(session);
      session.once('close', () => server.homeportSessions.delete(session));
    });
    server.once('close', () => {
      if (!draining) servers.delete(server);
    });
    server.once('listening', () => say(`listening ${process.pid} ${name}`));
  }

  // A cluster worker listens itself, the socket is shared already. Left to the cluster, the primary would accept and
  // hand out (`exclusive` is not looked at beside a descriptor), and keep what comes when its workers have left.
  function itself(work) {
    const cluster = require('cluster');
    if (!cluster.isWorker) return work();
    const { isPrimary, isMaster } = cluster;
    Object.assign(cluster, { isPrimary: true, isMaster: true });
    try {
      return work();
    } finally {
      Object.assign(cluster, { isPrimary, isMaster });
    }
  }

  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...args) {
    const name = nameOf(args);
    const fd = name === undefined ? undefined : take(name);
    if (fd === undefined) return listen.apply(this, args);
    say(`starting ${process.pid}`);
    follow(this, name);
    const done = args[args.length - 1];
    const where = ended() ? { host: '127.0.0.1', port: 0 } : { fd };
    return itself(() => listen.call(this, where, ...(typeof done === 'function' ? [done] : [])));
  };
}
