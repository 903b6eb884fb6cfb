# vpnd and the kernel's own WireGuard.

scenario_the_kernel_answers_an_initiation_of_vpnd() {
  equal "$(handshake wg0 vpn0)" 0 "handshakes before"
  pings left 10.77.0.3
  equal "$(in_host kernel wg show wg0 endpoints | grep -F "$(public vpn0)" | cut -f2)" 198.51.100.1:51820 \
    "where the kernel sees vpnd"
  [ "$(handshake vpn0 wg0)" -gt 0 ]
}

scenario_vpnd_answers_an_initiation_of_the_kernel_over_ipv6() {
  refused in_host right ping -q -n -c 1 -W 1 10.77.0.3
  pings kernel 10.77.0.2
  equal "$(in_host right wg show vpn1 endpoints | grep -F "$(public wg0)" | cut -f2)" '[2001:db8::3]:51822' \
    "where vpnd sees the kernel"
  [ "$(handshake vpn1 wg0)" -gt 0 ]
}

scenario_packets_of_every_size_pass_between_the_kernel_and_vpnd() {
  local size # 1392 makes a packet of 1420 bytes, which is the MTU
  for size in 0 1 15 16 17 1391 1392; do
    pings left 10.77.0.3 -s $size -M do -c 1
    pings kernel 10.77.0.2 -s $size -M do -c 1
  done
  pings left fd77::3 -s 1372 -M do
  pings kernel fd77::2 -s 1372 -M do
}

scenario_tcp_passes_both_ways_between_the_kernel_and_vpnd() {
  sends left kernel 10.77.0.3
  sends kernel left fd77::1
  sends right kernel fd77::3
  sends kernel right 10.77.0.2
}

# What one sent is what the other received, to the byte. Keepalives that are due may still be on their way.
same_bytes() {
  local here there
  here=$(transfer "$1" "$2") there=$(transfer "$2" "$1")
  echo "$1: $here, $2: $there"
  [ "$here" = "${there#* } ${there% *}" ]
}

scenario_the_kernel_and_vpnd_count_the_same_bytes() {
  until_true same_bytes vpn0 wg0
  until_true same_bytes vpn1 wg0
}

scenario_vpnd_ignores_a_source_that_is_not_the_kernel_peers_own() {
  ip -n kernel address add 10.77.0.66/32 dev wg0
  refused in_host kernel ping -q -n -c 2 -i 0.2 -W 1 -I 10.77.0.66 10.77.0.2
  ip -n kernel address del 10.77.0.66/32 dev wg0
  pings kernel 10.77.0.2
}
