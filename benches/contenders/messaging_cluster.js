// What messages cost with Node's `cluster`: the same figures as `benches/messaging.rs` for processes.
//
//     node messaging_cluster.js
//
// The default serialization (JSON) and `advanced` are both measured. A message counts when it was received.
'use strict';
const cluster = require('node:cluster');
const dgram = require('node:dgram');

const TEXT = 'x'.repeat(100);
const ROUNDS = 20_000;
const MANY = 200_000;
const SOCKETS = 2_000;

if (cluster.isWorker) {
  process.on('message', (order, handle) => {
    switch (order.kind) {
      case 'echo': process.send(order.text); break;
      case 'swallow': break;
      case 'mark': process.send('mark'); break;
      case 'talk': {
        for (let sent = 0; sent < order.times; sent++) process.send(TEXT);
        process.send('mark');
        break;
      }
      case 'take': handle.close(); process.send('mark'); break;
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
  console.log(`node cluster ${name}: ${figure}`);
}

async function run() {
  for (const serialization of ['json', 'advanced']) {
    cluster.setupPrimary({ serialization });
    const worker = cluster.fork();
    await new Promise((resolve) => worker.on('online', resolve));
    await timed(`(${serialization}) round_trip_100_bytes`, ROUNDS, 'us', async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const back = until(worker, TEXT);
        worker.send({ kind: 'echo', text: TEXT });
        await back;
      }
    });
    await timed(`(${serialization}) socket_with_a_message`, SOCKETS, 'us', async () => {
      for (let round = 0; round < SOCKETS; round++) {
        const socket = dgram.createSocket('udp4');
        await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
        const back = until(worker, 'mark');
        worker.send({ kind: 'take' }, socket);
        await back;
        socket.close();
      }
    });
    await timed(`(${serialization}) one_way_down_100_bytes`, MANY, 'rate', async () => {
      const back = until(worker, 'mark');
      for (let sent = 0; sent < MANY; sent++) worker.send({ kind: 'swallow', text: TEXT });
      worker.send({ kind: 'mark' });
      await back;
    });
    await timed(`(${serialization}) one_way_up_100_bytes`, MANY, 'rate', async () => {
      const back = until(worker, 'mark');
      worker.send({ kind: 'talk', times: MANY });
      await back;
    });
    worker.kill();
  }
}
