// Node's cluster, round robin: the primary accepts and passes every connection to a worker process.
// usage: node node_cluster.js [--listen ADDR:PORT] [--workers N]
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const { parseArgs } = require('node:util');

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    workers: { type: 'string', default: '2' },
  },
});

const BODY = 'Hello, World!';
const HEADERS = { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(BODY) };

if (cluster.isPrimary) {
  primary(Number(values.workers));
} else {
  worker(new URL(`http://${values.listen}`));
}

function primary(workers) {
  if (!Number.isInteger(workers) || workers < 1) {
    throw new RangeError(`--workers: at least 1, not ${values.workers}`);
  }
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.once('listening', (_, { address, port, addressType }) => {
    const host = addressType === 6 ? `[${address}]` : address;
    console.log(`listening on http://${host}:${port}`);
  });
  for (let n = 0; n < workers; n += 1) cluster.fork();

  // Dies by the signal once the workers are gone, so that none is left behind.
  process.once('SIGTERM', () => {
    for (const each of Object.values(cluster.workers)) each.process.kill('SIGKILL');
    cluster.on('exit', () => {
      if (Object.keys(cluster.workers).length === 0) process.kill(process.pid, 'SIGTERM');
    });
  });
}

function worker(url) {
  const server = http.createServer((request, response) => {
    const found = request.method === 'GET' && request.url === '/plaintext';
    if (!found) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, HEADERS).end(BODY);
  });
  // URL leaves out the port when it is 80, and keeps the brackets of an IPv6 address.
  server.listen(Number(url.port || 80), url.hostname.replace(/^\[|\]$/g, ''));
}
