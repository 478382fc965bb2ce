// What messages cost with Node's `worker_threads`: the same figures as `benches/messaging.rs` for threads.
//
//     node messaging_threads.js
//
// Sockets cannot be sent to a thread in this version of Node.
'use strict';
const { Worker, isMainThread, parentPort } = require('node:worker_threads');

const TEXT = 'x'.repeat(100);
const ROUNDS = 50_000;
const MANY = 500_000;

if (!isMainThread) {
  parentPort.on('message', (order) => {
    switch (order.kind) {
      case 'echo': parentPort.postMessage(order.text); break;
      case 'swallow': break;
      case 'mark': parentPort.postMessage('mark'); break;
      case 'talk': {
        for (let sent = 0; sent < order.times; sent++) parentPort.postMessage(TEXT);
        parentPort.postMessage('mark');
        break;
      }
    }
  });
} else {
  run().then(() => process.exit(0));
}

function until(worker, wanted) {
  return new Promise((resolve) => {
    const listener = (message) => {
      if (message !== wanted) return;
      worker.off('message', listener);
      resolve();
    };
    worker.on('message', listener);
  });
}

async function timed(name, times, unit, work) {
  const start = process.hrtime.bigint();
  await work();
  const each = Number(process.hrtime.bigint() - start) / times;
  const figure = unit === 'us' ? `${(each / 1000).toFixed(2)} us` : `${(1e3 / each).toFixed(3)} million/s`;
  console.log(`node worker_threads ${name}: ${figure}`);
}

async function run() {
  const worker = new Worker(__filename);
  await new Promise((resolve) => worker.on('online', resolve));
  await timed('round_trip_100_bytes', ROUNDS, 'us', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const back = until(worker, TEXT);
      worker.postMessage({ kind: 'echo', text: TEXT });
      await back;
    }
  });
  await timed('one_way_down_100_bytes', MANY, 'rate', async () => {
    const back = until(worker, 'mark');
    for (let sent = 0; sent < MANY; sent++) worker.postMessage({ kind: 'swallow', text: TEXT });
    worker.postMessage({ kind: 'mark' });
    await back;
  });
  await timed('one_way_up_100_bytes', MANY, 'rate', async () => {
    const back = until(worker, 'mark');
    worker.postMessage({ kind: 'talk', times: MANY });
    await back;
  });
}
