#!/bin/sh
# nginx in the foreground from a temporary configuration, which goes away with it.
# usage: nginx.sh "ADDR:PORT [OPTION]..." WORKERS        (nginx cannot take port 0; OPTION: of its `listen`)
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 \"ADDR:PORT [OPTION]...\" WORKERS" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
. "$here/foreground.sh"

sed -e "s|@DIRECTORY@|$directory|g; s|@LISTEN@|$1|g; s|@WORKERS@|$2|g" \
    "$here/nginx.conf.in" >"$directory/nginx.conf"
# The kernel ends it when this shell is killed, which then cannot.
setpriv --pdeathsig TERM -- nginx -p "$directory" -e stderr -c "$directory/nginx.conf" &
server=$!

# nginx writes its pid after it listens.
while [ ! -s "$directory/nginx.pid" ] && kill -0 "$server" 2>/dev/null; do
    sleep 0.02
done
if [ -s "$directory/nginx.pid" ]; then
    # It needs no file any more, and a shell that is killed could not remove them.
    rm -rf "$directory"
    echo "listening on http://$1"
fi
wait "$server"
