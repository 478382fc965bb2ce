// The tiny Node server: what a worker of node_cluster.js and one of PM2 both are; and the options of Node's contenders.
'use strict';

const http = require('node:http');
const { parseArgs } = require('node:util');

const BODY = 'Hello, World!';
const HEADERS = { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(BODY) };

// What the command line says: where to listen, and how many workers. `--version` ends the program.
function options() {
  const { values } = parseArgs({
    options: {
      listen: { type: 'string', default: '127.0.0.1:0' },
      workers: { type: 'string', default: '2' },
      version: { type: 'boolean', default: false },
    },
  });
  if (values.version) {
    console.log(`node ${process.version}`);
    process.exit(0);
  }
  const workers = Number(values.workers);
  if (!Number.isInteger(workers) || workers < 1) {
    throw new RangeError(`--workers: at least 1, not ${values.workers}`);
  }
  return { listen: values.listen, workers };
}

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

module.exports = { options, serve, announce };
