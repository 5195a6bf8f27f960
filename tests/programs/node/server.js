// A server, http or https: `node server.js PORT [KEY CERTIFICATE]`.
//
// /plain, /big/BYTES (a block allocated and dropped), /keep/BYTES (one that is
// kept), /status/CODE; its own counts, by path and status, are at /counts. Blocks
// are Buffers, which lie outside V8's heap. Deliberately not here: anything that
// knows memtrace.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');

const [port, key, certificate] = process.argv.slice(2);
const counts = {};
const kept = [];

function answer(path) {
  const [, name, argument] = path.split('/');
  switch (name) {
    case 'plain':
      return [200, 'plain\n'];
    case 'big':
      return [200, `${Buffer.alloc(Number(argument)).length}\n`];
    case 'keep':
      return [200, `${kept.push(Buffer.alloc(Number(argument)))}\n`];
    case 'status':
      return [Number(argument), `${argument}\n`];
    case 'counts':
      return [200, JSON.stringify(counts)];
    default:
      return [404, 'missing\n'];
  }
}

function serve(request, response) {
  const [status, body] = answer(request.url);
  const of = (counts[request.url] ??= {});
  of[status] = (of[status] ?? 0) + 1;
  const length = Buffer.byteLength(body);
  response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': length });
  response.end(body);
}

const server = key
  ? https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(certificate) }, serve)
  : http.createServer(serve);
server.listen(Number(port), '127.0.0.1');
