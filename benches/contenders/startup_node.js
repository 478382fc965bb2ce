// How long a worker of Node's takes to start, and how long a killed one is missed: the same figures as
// `benches/startup.rs`, one line each.
//
//     node startup_node.js [ROUNDS]
//
// A worker of `cluster` is ready when the primary has its `listening` event; a thread of `worker_threads`, which cannot
// listen for a cluster, when its first message came. What replaces a killed worker is forked in its `exit` event,
// as Node's documentation shows it.
'use strict';
const cluster = require('node:cluster');
const net = require('node:net');
const { once } = require('node:events');
const { Worker, isMainThread, parentPort } = require('node:worker_threads');

if (!isMainThread) {
  parentPort.postMessage('ready');
} else if (cluster.isWorker) {
  net.createServer().listen(0, '127.0.0.1');
} else {
  run(Number(process.argv[2] ?? 20)).then(() => process.exit(0));
}

async function run(rounds) {
  print('cluster fork_to_listening', await measure(rounds, forkAndEnd));
  print('cluster sigkill_to_listening', await measure(rounds, killAndReplace));
  print('worker_threads start_to_message', await measure(rounds, startThread));
}

async function forkAndEnd() {
  const start = process.hrtime.bigint();
  const worker = cluster.fork();
  await once(worker, 'listening');
  const time = since(start);
  worker.kill();
  await once(worker, 'exit');
  return time;
}

async function killAndReplace() {
  const worker = cluster.fork();
  await once(worker, 'listening');
  const start = process.hrtime.bigint();
  worker.process.kill('SIGKILL');
  await once(worker, 'exit');
  const next = cluster.fork();
  await once(next, 'listening');
  const time = since(start);
  next.kill();
  await once(next, 'exit');
  return time;
}

async function startThread() {
  const start = process.hrtime.bigint();
  const worker = new Worker(__filename);
  await once(worker, 'message');
  const time = since(start);
  await worker.terminate();
  return time;
}

async function measure(rounds, round) {
  const times = [];
  for (let done = 0; done < rounds; done++) times.push(await round());
  return times.sort((a, b) => a - b);
}

function since(start) {
  return Number(process.hrtime.bigint() - start) / 1e6;
}

// The median, and the bounds between which half of the rounds were.
function print(name, times) {
  const at = (share) => times[Math.floor((times.length - 1) * share)].toFixed(2);
  console.log(`node ${name}: ${at(0.5)} ms (${at(0.25)} to ${at(0.75)})`);
}
