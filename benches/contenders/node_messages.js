// What messaging_cluster.js and messaging_threads.js share: what a worker does when it is told to, and what is timed.
// A message counts when it was received.
'use strict';

const TEXT = 'x'.repeat(100);

// In the worker. `send` sends to the primary.
function obey(order, send) {
  switch (order.kind) {
    case 'echo': send(order.text); break;
    case 'swallow': break;
    case 'mark': send('mark'); break;
    case 'talk': {
      for (let sent = 0; sent < order.times; sent++) send(TEXT);
      send('mark');
      break;
    }
  }
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

// Prints a line: how long each took, in us, or how many there were in a second.
async function timed(name, times, unit, work) {
  const start = process.hrtime.bigint();
  await work();
  const each = Number(process.hrtime.bigint() - start) / times;
  const figure = unit === 'us' ? `${(each / 1000).toFixed(2)} us` : `${(1e3 / each).toFixed(3)} million/s`;
  console.log(`node ${name}: ${figure}`);
}

// Texts there and back, and one way. `send` sends to the worker.
async function texts(name, worker, send, rounds, many) {
  await timed(`${name} round_trip_100_bytes`, rounds, 'us', async () => {
    for (let round = 0; round < rounds; round++) {
      const back = until(worker, TEXT);
      send({ kind: 'echo', text: TEXT });
      await back;
    }
  });
  await timed(`${name} one_way_down_100_bytes`, many, 'rate', async () => {
    const back = until(worker, 'mark');
    for (let sent = 0; sent < many; sent++) send({ kind: 'swallow', text: TEXT });
    send({ kind: 'mark' });
    await back;
  });
  await timed(`${name} one_way_up_100_bytes`, many, 'rate', async () => {
    const back = until(worker, 'mark');
    send({ kind: 'talk', times: many });
    await back;
  });
}

module.exports = { obey, until, timed, texts };
