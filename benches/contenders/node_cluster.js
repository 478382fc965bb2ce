// Node's cluster, round robin: the primary accepts and passes every connection to a worker process.
// usage: node node_cluster.js [--listen ADDR:PORT] [--workers N] [--version]
'use strict';

const cluster = require('node:cluster');
const { parseArgs } = require('node:util');
const { announce, serve } = require('./node_server.js');

const { values } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:0' },
    workers: { type: 'string', default: '2' },
    version: { type: 'boolean', default: false },
  },
});

if (values.version) {
  console.log(`node ${process.version}`);
} else if (cluster.isPrimary) {
  primary(Number(values.workers));
} else {
  serve(values.listen);
}

function primary(workers) {
  if (!Number.isInteger(workers) || workers < 1) {
    throw new RangeError(`--workers: at least 1, not ${values.workers}`);
  }
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.once('listening', (_, where) => announce(where));
  for (let n = 0; n < workers; n += 1) cluster.fork();

  // Dies by the signal once the workers are gone, so that none is left behind.
  process.once('SIGTERM', () => {
    for (const each of Object.values(cluster.workers)) each.process.kill('SIGKILL');
    cluster.on('exit', () => {
      if (Object.keys(cluster.workers).length === 0) process.kill(process.pid, 'SIGTERM');
    });
  });
}
