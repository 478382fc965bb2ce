// The tiny Node server: what a worker of node_cluster.js and one of PM2 both are.
'use strict';

const http = require('node:http');

const BODY = 'Hello, World!';
const HEADERS = { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(BODY) };

// Listens on ADDR:PORT and answers GET /plaintext.
function serve(listen) {
  const url = new URL(`http://${listen}`);
  const server = http.createServer((request, response) => {
    const found = request.method === 'GET' && request.url === '/plaintext';
    if (!found) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, HEADERS).end(BODY);
  });
  // URL leaves out the port when it is 80, and keeps the brackets of an IPv6 address.
  return server.listen(Number(url.port || 80), url.hostname.replace(/^\[|\]$/g, ''));
}

// Prints the line that scripts wait for.
function announce({ address, port }) {
  const host = address.includes(':') ? `[${address}]` : address;
  console.log(`listening on http://${host}:${port}`);
}

module.exports = { serve, announce };
