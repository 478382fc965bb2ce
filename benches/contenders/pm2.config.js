// What PM2 runs for pm2.sh, which sets the variables: N workers behind one port.
'use strict';

const path = require('node:path');

const { CONTENDER_WORKERS } = process.env;

module.exports = {
  apps: [
    {
      name: 'contender',
      script: path.join(__dirname, 'pm2_worker.js'),
      exec_mode: 'cluster',
      instances: Number(CONTENDER_WORKERS),
      // Nothing drains: a measurement has nothing left to drain.
      kill_timeout: 100,
      // Its log files would lie beside the script otherwise; nobody reads them.
      out_file: '/dev/null',
      error_file: '/dev/null',
      env: { NODE_ENV: 'production' },
    },
  ],
};
