// One Node server whose heavy route computes in a pool of worker_threads: the loop goes on meanwhile.
// usage: node node_worker_threads.js [--listen ADDR:PORT] [--workers N] [--version]
//   GET /plaintext       Hello, World!
//   GET /burn?ms=N       answers after N ms of computing in the pool, 0 to 10000
'use strict';

const http = require('node:http');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { announce, options } = require('./node_server.js');

const BODY = 'Hello, World!';
const HEADERS = { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(BODY) };
const LONGEST_MS = 10_000;
// Tasks that wait; what comes beyond is answered 503.
const MOST_WAITING = 10_000;

// Computes for so long, and says how many rounds that were.
function burn(ms) {
  const end = process.hrtime.bigint() + BigInt(ms) * 1_000_000n;
  let rounds = 0;
  let word = 1;
  while (process.hrtime.bigint() < end) {
    for (let n = 0; n < 1000; n += 1) word = (Math.imul(word, 1664525) + 1013904223) | 0;
    rounds += 1;
  }
  return word === 0 ? 0 : rounds;
}

function main() {
  const { listen: where, workers } = options();
  listen(new URL(`http://${where}`), new Pool(workers));
}

// As Node's documentation has it (worker_threads, "Worker pool"): workers that stay, and a queue in front of them.
class Pool {
  constructor(size) {
    this.idle = [];
    this.waiting = [];
    for (let n = 0; n < size; n += 1) this.add();
  }

  add() {
    const worker = new Worker(__filename);
    worker.on('message', (result) => {
      const { done } = worker;
      worker.done = undefined;
      this.idle.push(worker);
      this.next();
      done(result);
    });
    // A pool that has lost a thread measures something else.
    worker.on('error', (error) => {
      throw error;
    });
    this.idle.push(worker);
  }

  // Whether it was taken.
  run(ms, done) {
    if (this.waiting.length >= MOST_WAITING) return false;
    this.waiting.push({ ms, done });
    this.next();
    return true;
  }

  next() {
    if (this.idle.length === 0 || this.waiting.length === 0) return;
    const worker = this.idle.pop();
    const { ms, done } = this.waiting.shift();
    worker.done = done;
    worker.postMessage(ms);
  }
}

function listen(where, pool) {
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://contender');
    if (request.method === 'GET' && url.pathname === '/plaintext') {
      response.writeHead(200, HEADERS).end(BODY);
    } else if (request.method === 'GET' && url.pathname === '/burn') {
      heavy(url.searchParams.get('ms'), pool, response);
    } else {
      response.writeHead(404).end();
    }
  });
  server.once('listening', () => announce(server.address()));
  // URL leaves out the port when it is 80, and keeps the brackets of an IPv6 address.
  server.listen(Number(where.port || 80), where.hostname.replace(/^\[|\]$/g, ''));
}

function heavy(text, pool, response) {
  const ms = /^\d{1,5}$/.test(text ?? '') ? Number(text) : NaN;
  if (!(ms <= LONGEST_MS)) {
    response.writeHead(400).end(`ms is from 0 to ${LONGEST_MS}\n`);
    return;
  }
  const taken = pool.run(ms, (rounds) => {
    const body = `${rounds} rounds\n`;
    response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  });
  if (!taken) response.writeHead(503).end();
}

if (isMainThread) {
  main();
} else {
  parentPort.on('message', (ms) => parentPort.postMessage(burn(ms)));
}
