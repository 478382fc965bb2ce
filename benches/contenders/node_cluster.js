// Node's cluster, round robin: the primary accepts and passes every connection to a worker process.
// usage: node node_cluster.js [--listen ADDR:PORT] [--workers N] [--version]
'use strict';

const cluster = require('node:cluster');
const { announce, options, serve } = require('./node_server.js');

const { listen, workers } = options();

if (cluster.isPrimary) {
  primary();
} else {
  serve(listen);
}

function primary() {
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
