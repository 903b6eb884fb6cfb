# The unit under a real systemd: it starts, says ready, carries packets, and is as confined as it says.

scenario_the_package_brings_user_folders_and_completions_and_starts_nothing() {
  equal "$(stat -c '%U %G %a' /etc/vpnd /var/lib/vpnd | paste -s -d,)" "vpnd vpnd 750,vpnd vpnd 700" "the folders"
  getent passwd vpnd | grep -F nologin
  bash -n /usr/share/bash-completion/completions/vpnd
  property vpnd@vpn0 FragmentPath | grep -E '^(/usr)?/lib/systemd/system/vpnd@\.service$'
  equal "$(systemctl list-units --no-legend --state=active,failed 'vpnd@*')" "" "what runs"
}

scenario_systemd_accepts_the_unit_without_a_word() {
  local said
  said=$(systemd-analyze verify vpnd@vpn0.service 2>&1)
  equal "$said" "" "systemd-analyze verify"
}

scenario_the_sandbox_leaves_little_open() {
  systemd-analyze security --threshold=17 vpnd@vpn0.service
}

scenario_two_instances_start_and_say_that_they_are_ready() {
  local unit
  systemctl start vpnd@vpn0 vpnd@vpn1
  for unit in vpnd@vpn0 vpnd@vpn1; do
    equal "$(property $unit Type,ActiveState,SubState,NRestarts)" "notify 0 active running" "$unit"
    [ -n "$(property $unit StatusText)" ] || fail "$unit says no status"
  done
}

scenario_two_instances_carry_pings_of_both_families() {
  pings left 10.77.0.2
  pings left fd77::2
  pings right 10.77.0.1
  pings right fd77::1
}

scenario_a_default_route_leads_through_the_tunnel() {
  pings right 203.0.113.1
}

# A host behind this one asks for somebody whom no peer has; in whose name is it told?
told_in_the_name_of() {
  sysctl -q -w net.ipv4.ip_forward=1
  ip -n kernel route replace 10.77.0.9/32 via 198.51.100.1
  in_host kernel ping -n -c 3 -i 0.5 -W 2 10.77.0.9 >/tmp/answers || true
  ip -n kernel route del 10.77.0.9/32
  sysctl -q -w net.ipv4.ip_forward=0
  grep -F "From $1 icmp_seq=1 Destination Host Unreachable" /tmp/answers
}

scenario_a_host_behind_is_told_that_nobody_has_a_destination() {
  told_in_the_name_of 10.77.0.9
}

# The lines that the unit's comment has for what takes another capability.
drop_in_of_the_unit() {
  local unit
  unit=$(property "$1" FragmentPath)
  mkdir -p "/run/systemd/system/$1.service.d"
  {
    echo '[Service]'
    sed -n 's/^#     \([A-Z][A-Za-z]*=.*\)/\1/p' "$unit"
  } | tee "/run/systemd/system/$1.service.d/more.conf"
  systemctl daemon-reload
}

scenario_with_the_units_drop_in_it_is_told_in_the_gateways_name_and_a_port_below_1024_is_bound() {
  local pid
  drop_in_of_the_unit vpnd@vpn0
  equal "$(grep -c = /run/systemd/system/vpnd@vpn0.service.d/more.conf)" 5 "lines of the drop-in"
  sed -i 's/^listen_port = 51820/listen_port = 443/' /etc/vpnd/vpn0.toml
  systemctl restart vpnd@vpn0
  pings left 10.77.0.2
  told_in_the_name_of 198.51.100.1
  # It gave CAP_NET_RAW (13) up, and keeps CAP_NET_ADMIN (12) and CAP_NET_BIND_SERVICE (10).
  pid=$(property vpnd@vpn0 MainPID)
  equal "$(wg show vpn0 listen-port)" 443 "the port"
  equal "$(sed -n 's/^CapPrm:\t//p' "/proc/$pid/status")" 0000000000001400 "capabilities"
  vpnd status vpn0 --json | grep -F '"capabilities":["CAP_NET_ADMIN","CAP_NET_BIND_SERVICE"]'

  rm /run/systemd/system/vpnd@vpn0.service.d/more.conf
  systemctl daemon-reload
  systemctl stop vpnd@vpn0
  refused systemctl start vpnd@vpn0
  said vpnd@vpn0 'UDP port 443 .*CAP_NET_BIND_SERVICE'
  sed -i 's/^listen_port = 443/listen_port = 51820/' /etc/vpnd/vpn0.toml
  systemctl stop vpnd@vpn0
  systemctl start vpnd@vpn0
  pings left 10.77.0.2
}

scenario_tcp_passes_both_ways() {
  sends left right 10.77.0.2
  sends right left fd77::1
}

scenario_the_process_is_confined() {
  local unit pid names
  for unit in vpnd@vpn0 vpnd@vpn1; do
    pid=$(property $unit MainPID)
    grep -E '^(Uid|NoNewPrivs|Seccomp|Cap(Prm|Eff|Bnd|Amb)):' "/proc/$pid/status" | tr -s '\t\n' ' ' >/tmp/status
    # CAP_NET_ADMIN is bit 12; 2 is a filter.
    grep -E '^Uid: [1-9].* CapPrm: 0{12}1000 CapEff: 0{12}1000 CapBnd: 0{12}1000 CapAmb: 0{16} NoNewPrivs: 1 Seccomp: 2 $' \
      /tmp/status
    # Who looks up names has none.
    names=$(grep -lx vpnd-names $(sed 's/[0-9]\+/\/proc\/&\/comm/g' "/proc/$pid/task/$pid/children") | cut -d/ -f3)
    grep -E '^(CapPrm|CapEff|CapAmb):' "/proc/$names/status" | tr -s '\t\n' ' ' >/tmp/status
    grep -E '^CapPrm: 0{16} CapEff: 0{16} CapAmb: 0{16} $' /tmp/status
    # The daemon's own sandbox inside: each thread has its list, and the unit lets all of it come about.
    vpnd status "${unit#vpnd@}" --json | grep -F '"seccomp":"kill"' | grep -F '"no_new_privileges":true' >/tmp/own
    refused grep -E '"missing":\[[^]]*(seccomp|capabilit)' /tmp/own
    nsenter -t "$pid" -m sh -xc '! touch /etc/vpnd/x && ! touch /usr/x && ! ls /root/.profile && ! ls /dev/nvme0n1'
  done
}

scenario_wg_and_vpnd_show_the_running_tunnel() {
  wg show vpn0 | grep -F "peer: $(public wg0)"
  vpnd status vpn0 | grep -F kernel
}

scenario_the_journal_names_the_unit_and_the_program() {
  local fields
  fields=$(journalctl -b -u vpnd@vpn0 -o json --output-fields=SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,MESSAGE | grep '"up interface=')
  grep -F '"SYSLOG_IDENTIFIER":"vpnd"' <<<"$fields"
  grep -F '"_SYSTEMD_UNIT":"vpnd@vpn0.service"' <<<"$fields"
  # The time and the colours are the journal's.
  refused grep -E '[0-9]{4}-[0-9]{2}-[0-9]{2}T|\\u001b' <<<"$fields"
  # An event's fields can be asked for.
  journalctl -b -u vpnd@vpn0 VPND_EVENT=connected VPND_PEER=right -o json | grep -F '"VPND_ENDPOINT":"192.0.2.2:'
}
