// The range's Node server: `node app.js PORT [KEY CERTIFICATE]`, http or https.
//
// /plain and /NAME/BYTES, where NAME says when BYTES are allocated and freed; its
// own counts are at /counts. Redis at REDIS_PORT over one pipelined connection,
// PostgreSQL at POSTGRES_PORT over a pool of eight, each spoken in a few lines:
// what a client library would do on the same event loop. Blocks are Buffers,
// whose memory is outside V8's heap; V8 frees it when it collects the Buffer.
// Deliberately not here: anything that knows memtrace.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');
const net = require('net');
const os = require('os');
const path = require('path');

const [port, key, certificate] = process.argv.slice(2);
const FILE_BYTES = 5_000_000;
const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'range-node-')), 'file');
fs.writeFileSync(file, Buffer.alloc(FILE_BYTES));
process.on('exit', () => fs.rmSync(path.dirname(file), { recursive: true }));
process.on('SIGTERM', () => process.exit(0));

const kept = [];
let forTheNext = null;
const counts = {};

const block = (bytes) => Buffer.alloc(bytes);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The sizes of pieces in the given proportions, which add up exactly. */
function parts(bytes, ...shares) {
  const whole = shares.reduce((a, b) => a + b);
  const sizes = shares.map((share) => Math.floor(bytes * share / whole));
  sizes[sizes.length - 1] += bytes - sizes.reduce((a, b) => a + b);
  return sizes;
}

/** Redis: one connection, answers in the order of questions. */
class Cache {
  constructor(port) {
    this.waiting = [];
    this.socket = net.connect(port, '127.0.0.1').setNoDelay();
    let unread = '';
    this.socket.on('data', (data) => {
      const lines = (unread + data).split('\r\n');
      unread = lines.pop();
      for (const line of lines) this.waiting.shift()(line);
    });
  }
  increment(name) {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.socket.write(`*2\r\n$4\r\nINCR\r\n$${name.length}\r\n${name}\r\n`);
    });
  }
}

/** PostgreSQL's simple queries, over a few connections. */
class Database {
  constructor(port, size) {
    this.idle = [];
    this.queue = [];
    for (let i = 0; i < size; i++) this.open(port);
  }
  open(port) {
    const socket = net.connect(port, '127.0.0.1').setNoDelay();
    const text = Buffer.from('user\0postgres\0database\0postgres\0\0');
    const head = Buffer.alloc(8);
    head.writeInt32BE(8 + text.length, 0);
    head.writeInt32BE(196608, 4);
    socket.write(Buffer.concat([head, text]));
    const connection = { socket, done: null };
    let unread = Buffer.alloc(0);
    socket.on('data', (data) => {
      unread = Buffer.concat([unread, data]);
      while (unread.length >= 5) {
        const length = unread.readInt32BE(1) + 1;
        if (unread.length < length) return;
        const type = unread[0];
        unread = unread.subarray(length);
        if (type === 0x5a) { // ReadyForQuery
          const done = connection.done;
          connection.done = null;
          this.release(connection);
          if (done) done();
        }
      }
    });
  }
  release(connection) {
    const next = this.queue.shift();
    if (next) this.ask(connection, next);
    else this.idle.push(connection);
  }
  ask(connection, { sql, done }) {
    const text = Buffer.from(`${sql}\0`);
    const head = Buffer.alloc(5);
    head[0] = 0x51; // Query
    head.writeInt32BE(4 + text.length, 1);
    connection.done = done;
    connection.socket.write(Buffer.concat([head, text]));
  }
  query(sql) {
    return new Promise((done) => {
      const connection = this.idle.shift();
      if (connection) this.ask(connection, { sql, done });
      else this.queue.push({ sql, done });
    });
  }
}

const cache = new Cache(Number(process.env.REDIS_PORT));
const database = new Database(Number(process.env.POSTGRES_PORT), 8);

/** Half at first, half after what the promise stands for. */
async function around(bytes, between) {
  const [before, after] = parts(bytes, 1, 3);
  const first = block(before);
  await between();
  const second = block(after);
  return first.length + second.length;
}

const endpoints = {
  plain: async () => 0,
  freed: async (bytes) => {
    const [before, after] = parts(bytes, 1, 3);
    return block(before).length + block(after).length;
  },
  later: async (bytes) => { forTheNext = block(bytes); return forTheNext.length; },
  kept: async (bytes) => kept.push(block(bytes)),
  sleep: (bytes) => around(bytes, () => sleep(5)),
  cache: (bytes) => around(bytes, () => cache.increment('requests')),
  database: (bytes) => around(bytes, () => database.query('SELECT pg_sleep(0.004)')),
  gather: async (bytes) => {
    const children = parts(bytes, 1, 2, 3, 4).map((size, number) =>
      around(size, () => sleep(2 * (4 - number))));
    return (await Promise.all(children)).reduce((a, b) => a + b);
  },
  // libuv's threads read it; the block is as long as the file.
  file: async () => new Promise((resolve, reject) =>
    fs.readFile(file, (error, data) => error ? reject(error) : resolve(data.length))),
};

async function serve(request, response) {
  const [, name, bytes] = request.url.split('/');
  if (name === 'counts') {
    response.end(JSON.stringify(counts));
    return;
  }
  const endpoint = endpoints[name];
  const answer = endpoint ? `${await endpoint(Number(bytes))}\n` : 'not here\n';
  response.statusCode = endpoint ? 200 : 404;
  const statuses = counts[request.url] ??= {};
  statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1;
  response.setHeader('Content-Length', answer.length);
  response.end(answer);
}

const server = key
  ? https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(certificate) }, serve)
  : http.createServer(serve);
server.keepAliveTimeout = 60_000;
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 1024 });
