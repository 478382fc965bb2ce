// A worker under PM2, which pm2.config.js names: PM2 is the primary that accepts.
'use strict';

const { announce, serve } = require('./node_server.js');

const server = serve(process.env.CONTENDER_LISTEN);
// PM2 numbers its workers and starts them one after the other: the last one tells that all listen.
if (Number(process.env.NODE_APP_INSTANCE) === Number(process.env.CONTENDER_WORKERS) - 1) {
  server.once('listening', () => announce(server.address()));
}
