# What scenarios are written with. They run under `set -e`, which a negated command does not trip: hence `refused`.

# Says why, and fails.
fail() {
  echo "FAILED: $*"
  exit 1
}

# equal FOUND WANTED WHAT
equal() { [ "$1" = "$2" ] || fail "$3: found '$1', wanted '$2'"; }

# The command must fail.
refused() { if "$@"; then fail "succeeded: $*"; fi; }

# until_true COMMAND…: tries it until it succeeds. The limit is for a machine that is busy with other things, and below the
# two minutes after which a session is renewed by itself.
until_true() {
  local end=$((SECONDS + 100))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "not within the time: $*"
    sleep 0.1
  done
}

# in_host HOST COMMAND…: `left` is the machine's own namespace.
in_host() {
  local host=$1
  shift
  if [ "$host" = left ]; then "$@"; else ip netns exec "$host" "$@"; fi
}

# property UNIT NAME,…: their values, in systemd's own order.
property() { systemctl show --value -p "$2" "$1" | paste -s -d' '; }
# said UNIT PATTERN: a line of the present boot's journal.
said() { journalctl --no-pager -o cat -b -u "$1" | grep -E -- "$2"; }

# pings HOST ADDRESS [OPTION…]: three are answered, soon.
pings() {
  local host=$1 address=$2
  shift 2
  in_host "$host" ping -q -n -c 3 -i 0.1 -w 60 "$@" "$address"
}

# pings_without_loss HOST ADDRESS: eighty in eight seconds, and each is answered. A few more follow, since ping does not
# wait for the last ones where the machine is slow.
pings_without_loss() {
  in_host "$1" ping -n -c 100 -i 0.1 "$2" >/tmp/answers || true
  tail -n 3 /tmp/answers
  diff <(seq 80) <(sed -n 's/.*icmp_seq=\([0-9]*\) ttl.*/\1/p' /tmp/answers | sort -n | uniq | head -n 80)
}

# sends FROM TO ADDRESS: 1 MB over TCP, which arrives as it was.
sends() {
  local listener address=$3 listen=TCP-LISTEN
  case $address in *:*) address="[$address]" listen=TCP6-LISTEN ;; esac
  head -c 1000000 /dev/urandom >/tmp/sent
  in_host "$2" timeout 120 socat -u "$listen:5000,bind=$address,reuseaddr" CREATE:/tmp/received &
  listener=$!
  until_true listens "$2"
  in_host "$1" timeout 120 socat -u FILE:/tmp/sent "TCP:$address:5000"
  wait "$listener"
  cmp /tmp/sent /tmp/received
}
listens() { in_host "$1" ss -Hltn 'sport = 5000' | grep -q .; }

# handshake INTERFACE PEER: when it was, in seconds since 1970, or 0.
handshake() { in_host "$(host_of "$1")" wg show "$1" latest-handshakes | grep -F "$(public "$2")" | cut -f2; }
# transfer INTERFACE PEER: "received sent".
transfer() { in_host "$(host_of "$1")" wg show "$1" transfer | grep -F "$(public "$2")" | cut -f2,3 | tr '\t' ' '; }

# All that a daemon could leave behind, in both of the hosts where one runs. Folders stay (RuntimeDirectoryPreserve=).
traces() {
  local host
  for host in left right; do
    echo "== $host"
    in_host "$host" ip -o link | sed 's/^[0-9]*: //' | sort
    in_host "$host" ip rule
    in_host "$host" ip -6 rule
    in_host "$host" ip route show table all | sort
    in_host "$host" ip -6 route show table all | sed 's/ expires [0-9]*sec//' | sort
  done
  { find /run/wireguard /run/vpnd -mindepth 1 2>/dev/null || true; } | sort
  pgrep_vpnd
}

pgrep_vpnd() { grep -lx vpnd /proc/[0-9]*/comm 2>/dev/null || true; }
