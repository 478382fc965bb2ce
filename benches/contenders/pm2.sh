#!/bin/sh
# PM2's cluster mode in the foreground, with everything it writes in a temporary directory, which goes away with it.
# usage: pm2.sh [--listen ADDR:PORT] [--workers N] [--version]
# Ends with status 3 when PM2 is not installed: npm install --global pm2
set -eu

listen=127.0.0.1:0
workers=2
version=
while [ $# -gt 0 ]; do
    case $1 in
        --listen | --workers)
            [ $# -ge 2 ] || { echo "$1: a value is missing" >&2; exit 2; }
            [ "$1" = --listen ] && listen=$2 || workers=$2
            shift 2
            ;;
        --version) version=yes; shift ;;
        *) echo "usage: $0 [--listen ADDR:PORT] [--workers N] [--version]" >&2; exit 2 ;;
    esac
done
case $workers in
    '' | *[!0-9]* | 0*) echo "--workers: at least 1, not '$workers'" >&2; exit 2 ;;
esac
if ! command -v pm2-runtime >/dev/null; then
    echo "pm2.sh: SKIPPED, pm2-runtime is not on the PATH: npm install --global pm2" >&2
    exit 3
fi
if ! command -v setpriv >/dev/null; then
    echo "pm2.sh: setpriv is not on the PATH: install util-linux" >&2
    exit 3
fi

here=$(cd "$(dirname "$0")" && pwd)
. "$here/foreground.sh"

# pm2 starts a daemon even to say its version; pm2-runtime has none, and the same cluster mode.
export PM2_HOME="$directory/home" PM2_DISCRETE_MODE=true
if [ -n "$version" ]; then
    echo "pm2 $(pm2-runtime --version | tail -n 1), node $(node --version)"
    exit 0
fi
export CONTENDER_LISTEN="$listen" CONTENDER_WORKERS="$workers"
# Whoever ends this shell by force ends PM2, too.
setpriv --pdeathsig TERM pm2-runtime start "$here/pm2.config.js" --raw &
server=$!
wait "$server"
