# Three hosts, each joined to the others:
#
#   left   the machine itself       vpnd@vpn0   10.77.0.1 fd77::1   port 51820
#   right  a network namespace      vpnd@vpn1   10.77.0.2 fd77::2   port 51821   all its traffic goes to left
#   kernel a network namespace      wg0         10.77.0.3 fd77::3   port 51822   the kernel's own module
#
# left knows where the others are, so that vpnd initiates; right does not know where the kernel is, and the kernel
# does not know where left is: between any two, only one can begin.

host_of() {
  case $1 in
    vpn0) echo left ;;
    vpn1) echo right ;;
    wg0) echo kernel ;;
  esac
}

# public NAME: the public key of vpn0, vpn1 or wg0.
public() { cat "/opt/vpnd/keys/$1.pub"; }

# join HOST ADDRESS HOST ADDRESS: a cable.
join() {
  in_host "$1" ip link add "to-$3" type veth peer name "to-$1" netns "$3"
  plug "$1" "to-$3" "$2"
  plug "$3" "to-$1" "$4"
}

# Without asking the neighbours whether they have the address, which takes a second.
plug() {
  in_host "$1" sysctl -q -w net.ipv6.conf."$2".accept_dad=0
  in_host "$1" ip address add "$3" dev "$2"
  in_host "$1" ip link set "$2" up
}

make_hosts() {
  local host
  for host in right kernel; do
    ip netns add "$host"
    ip -n "$host" link set lo up
  done
  join left 192.0.2.1/24 right 192.0.2.2/24
  join left 198.51.100.1/24 kernel 198.51.100.3/24
  join right 2001:db8::2/64 kernel 2001:db8::3/64
  # Nobody but left has it: from right, only the tunnel's default route leads there.
  ip address add 203.0.113.1/32 dev lo
  echo 192.0.2.2 right.test >>/etc/hosts
}

make_key() {
  vpnd genkey --output "$2"
  vpnd pubkey "$2" >"keys/$1.pub"
}

make_keys() {
  local name
  mkdir -p -m 700 keys
  make_key vpn0 /etc/vpnd/vpn0.key
  make_key vpn1 /etc/vpnd/vpn1.key
  make_key wg0 keys/wg0.key
  vpnd genpsk --output /etc/vpnd/wg0.psk
}

make_files() {
  cat >/etc/vpnd/vpn0.toml <<TOML
[interface]
name = "vpn0"
private_key_file = "vpn0.key"
listen_port = 51820
address = ["10.77.0.1/24", "fd77::1/64"]
[[peer]]
name = "right"
public_key = "$(public vpn1)"
endpoint = "right.test:51821"
allowed_ips = ["10.77.0.2/32", "fd77::2/128"]
[[peer]]
name = "kernel"
public_key = "$(public wg0)"
preshared_key_file = "wg0.psk"
endpoint = "198.51.100.3:51822"
allowed_ips = ["10.77.0.3/32", "fd77::3/128"]
TOML
  cat >/etc/vpnd/vpn1.toml <<TOML
[interface]
name = "vpn1"
private_key_file = "vpn1.key"
listen_port = 51821
address = ["10.77.0.2/24", "fd77::2/64"]
[[peer]]
name = "left"
public_key = "$(public vpn0)"
allowed_ips = ["0.0.0.0/0", "::/0"]
[[peer]]
name = "kernel"
public_key = "$(public wg0)"
allowed_ips = ["10.77.0.3/32", "fd77::3/128"]
TOML
  mkdir -p /etc/systemd/system/vpnd@vpn1.service.d
  printf '[Service]\nNetworkNamespacePath=/run/netns/right\n' >/etc/systemd/system/vpnd@vpn1.service.d/right.conf
  # An emulated processor that has a tenth of a real one takes longer than the unit's ten seconds to run even `sh`.
  mkdir -p /etc/systemd/system/vpnd@.service.d
  printf '[Service]\nTimeoutStopSec=90\n' >/etc/systemd/system/vpnd@.service.d/patience.conf
  systemctl daemon-reload
}

# Without endpoint and session, as if they had never met: only left can begin.
kernel_forgets_left() {
  in_host kernel wg set wg0 peer "$(public vpn0)" remove
  in_host kernel wg set wg0 peer "$(public vpn0)" preshared-key /etc/vpnd/wg0.psk allowed-ips 10.77.0.1/32,fd77::1/128
}

make_kernel_peer() {
  ip -n kernel link add wg0 type wireguard
  in_host kernel wg set wg0 listen-port 51822 private-key keys/wg0.key \
    peer "$(public vpn1)" endpoint '[2001:db8::2]:51821' allowed-ips 10.77.0.2/32,fd77::2/128
  kernel_forgets_left
  ip -n kernel address add 10.77.0.3/24 dev wg0
  ip -n kernel address add fd77::3/64 dev wg0 nodad
  ip -n kernel link set wg0 up mtu 1420
}

# The first time, and over what is installed.
install_package() { dpkg --install /opt/vpnd/vpnd.deb; }

settled() { diff <(traces) <(sleep 1 && traces); }

make_world() {
  make_hosts
  make_keys
  make_files
  make_kernel_peer
  # Routes and addresses of IPv6 settle for a moment after a device came up.
  until_true settled
  traces >/tmp/before
}
