// Node's own HTTP/2 server: `http2_server.js PORT [KEY CERTIFICATE]`, in
// cleartext without a certificate.
//
// In:  /<kind>/<n>
//      plain     nothing
//      block     one buffer of n bytes
//      missing   404, and one buffer of n bytes
// Out: the buffer's length. Deliberately not here: a framework.
"use strict";

const fs = require("node:fs");
const http2 = require("node:http2");

const [port, key, certificate] = process.argv.slice(2);

function answer(request, response) {
  const [, kind, size] = request.url.split("/");
  const length = kind === "plain" ? 0 : Buffer.alloc(Number(size)).length;
  response.statusCode = kind === "missing" ? 404 : 200;
  response.end(`${length}\n`);
}

const server = key
  ? http2.createSecureServer(
      { key: fs.readFileSync(key), cert: fs.readFileSync(certificate) },
      answer,
    )
  : http2.createServer(answer);
server.listen(Number(port), "127.0.0.1");
