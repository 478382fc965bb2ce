// What messages cost with Node's `worker_threads`: the same figures as `benches/messaging.rs` for threads.
//
//     node messaging_threads.js
//
// Sockets cannot be sent to a thread in this version of Node.
'use strict';
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { obey, texts } = require('./node_messages.js');

const ROUNDS = 50_000;
const MANY = 500_000;

if (!isMainThread) {
  parentPort.on('message', (order) => obey(order, (message) => parentPort.postMessage(message)));
} else {
  run().then(() => process.exit(0));
}

async function run() {
  const worker = new Worker(__filename);
  await new Promise((resolve) => worker.on('online', resolve));
  await texts('worker_threads', worker, (message) => worker.postMessage(message), ROUNDS, MANY);
}
