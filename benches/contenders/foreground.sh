# Read by scripts that run a server in the foreground. They get `directory`, a temporary one, and set `server`, the
# process; both end with the script.

# A script that is killed removes nothing: whoever comes next does.
for left in "${TMPDIR:-/tmp}"/bimodal-contender.*; do
    owner=${left##*/bimodal-contender.}
    [ -d "/proc/${owner%%.*}" ] || rm -rf "$left" || true
done
directory=$(mktemp -d "${TMPDIR:-/tmp}/bimodal-contender.$$.XXXXXX")
server=

stop() {
    trap '' TERM INT
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" || true
    rm -rf "$directory"
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
