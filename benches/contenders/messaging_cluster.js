// What messages cost with Node's `cluster`: the same figures as `benches/messaging.rs` for processes.
//
//     node messaging_cluster.js
//
// The default serialization (JSON) and `advanced` are both measured.
'use strict';
const cluster = require('node:cluster');
const dgram = require('node:dgram');
const { obey, until, timed, texts } = require('./node_messages.js');

const ROUNDS = 20_000;
const MANY = 200_000;
const SOCKETS = 2_000;

if (cluster.isWorker) {
  const send = (message) => process.send(message);
  process.on('message', (order, socket) => {
    if (socket) {
      socket.close();
      send('mark');
    } else {
      obey(order, send);
    }
  });
} else {
  run().then(() => process.exit(0));
}

async function run() {
  for (const serialization of ['json', 'advanced']) {
    cluster.setupPrimary({ serialization });
    const worker = cluster.fork();
    await new Promise((resolve) => worker.on('online', resolve));
    const name = `cluster (${serialization})`;
    await timed(`${name} socket_with_a_message`, SOCKETS, 'us', () => sockets(worker));
    await texts(name, worker, (message) => worker.send(message), ROUNDS, MANY);
    worker.kill();
  }
}

async function sockets(worker) {
  for (let round = 0; round < SOCKETS; round++) {
    const socket = dgram.createSocket('udp4');
    await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
    const back = until(worker, 'mark');
    worker.send({ kind: 'take' }, socket);
    await back;
    socket.close();
  }
}
