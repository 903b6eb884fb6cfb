# Signals, crashes, mistakes, and the end.

scenario_a_hangup_is_named_in_the_journal_and_ends_nothing() {
  local pid
  pid=$(property vpnd@vpn0 MainPID)
  systemctl kill -s HUP vpnd@vpn0
  until_true said vpnd@vpn0 'SIGHUP'
  pings left 10.77.0.2
  equal "$(property vpnd@vpn0 MainPID)" "$pid" "the process"
}

scenario_systemctl_reload_applies_the_file_and_fails_on_a_bad_one() {
  local pid
  pid=$(property vpnd@vpn0 MainPID)
  cp -p /etc/vpnd/vpn0.toml /etc/vpnd/vpn0.kept
  sed -i '/^\[interface\]/a mtu = 1300' /etc/vpnd/vpn0.toml
  systemctl reload vpnd@vpn0
  said vpnd@vpn0 'mtu 1420 → 1300'
  echo 'colour = "blue"' >>/etc/vpnd/vpn0.toml
  refused systemctl reload vpnd@vpn0
  said vpnd@vpn0 'the unknown key "colour"'
  said vpnd@vpn0 'nothing was changed'
  cp -p /etc/vpnd/vpn0.kept /etc/vpnd/vpn0.toml
  rm /etc/vpnd/vpn0.kept
  systemctl reload vpnd@vpn0
  pings left 10.77.0.2
  equal "$(property vpnd@vpn0 MainPID)" "$pid" "the process"
}

restarted() { [ "$(property "$1" NRestarts,ActiveState)" = "$2 active" ]; }

# All but the processes' numbers.
as_before() { diff /tmp/running <(traces | grep -v ^/proc); }

# All but the processes' numbers, with the numbers of devices.
as_it_was() { diff /tmp/running <(standing); }
standing() {
  traces | grep -v ^/proc
  cat /sys/class/net/vpn0/ifindex
  in_host right cat /sys/class/net/vpn1/ifindex
}

# A number each 50 ms over one TCP connection, while a command runs: all arrive, in order, through the same connection.
while_tcp_runs() {
  local listener sender
  in_host right timeout 300 socat -u TCP-LISTEN:5000,bind=10.77.0.2,reuseaddr CREATE:/tmp/received &
  listener=$!
  until_true listens right
  rm -f /tmp/over
  (
    set +x
    for n in $(seq 6000); do
      echo "$n"
      if [ -e /tmp/over ]; then break; fi
      sleep 0.05
    done
  ) | tee /tmp/sent | timeout 300 socat -u - TCP:10.77.0.2:5000 &
  sender=$!
  until_true test -s /tmp/received
  "$@"
  sleep 1
  touch /tmp/over
  wait "$sender"
  wait "$listener"
  cmp /tmp/sent /tmp/received
}

taken_over() { journalctl --no-pager -o cat -b "_PID=$(property "$1" MainPID)" | grep -F 'taken over from the process before us'; }

restart_both() {
  local unit
  for unit in vpnd@vpn0 vpnd@vpn1; do
    systemctl restart $unit
    taken_over $unit
    # Nobody has to speak first: right knows where left is only by what the process before it knew.
    pings right 10.77.0.1 -c 1
    pings left 10.77.0.2 -c 1
  done
}

scenario_a_restart_under_load_keeps_the_interface_and_its_tcp_connections() {
  standing >/tmp/running
  while_tcp_runs restart_both
  until_true as_it_was
  equal "$(property vpnd@vpn0 NRestarts,ActiveState)" "0 active" "restarts that nobody asked for"
}

upgrade_the_package() {
  local unit before=()
  for unit in vpnd@vpn0 vpnd@vpn1; do before+=("$(property $unit MainPID)"); done
  install_package
  for unit in vpnd@vpn0 vpnd@vpn1; do
    [ "$(property $unit MainPID)" != "${before[0]}" ] || fail "$unit still runs the program from before"
    before=("${before[@]:1}")
    taken_over $unit
  done
  pings right 10.77.0.1 -c 1
}

scenario_an_upgrade_of_the_package_under_load_keeps_the_interface_and_its_tcp_connections() {
  standing >/tmp/running
  while_tcp_runs upgrade_the_package
  until_true as_it_was
}

newer_handshake() { [ "$(handshake wg0 vpn0)" -gt "$1" ]; }

scenario_the_kernels_sessions_are_back_after_a_restart_before_anybody_sends() {
  local before
  pings left 10.77.0.3
  before=$(handshake wg0 vpn0)
  sleep 1
  systemctl restart vpnd@vpn0
  until_true newer_handshake "$before"
  pings kernel 10.77.0.1
}

kill_both() {
  local unit
  for unit in vpnd@vpn0 vpnd@vpn1; do
    systemctl reset-failed $unit
    systemctl kill -s KILL $unit
    until_true restarted $unit 1
    taken_over $unit
  done
}

scenario_after_kill_9_under_load_systemd_starts_it_anew_and_nothing_is_lost_or_doubled() {
  standing >/tmp/running
  while_tcp_runs kill_both
  until_true as_it_was
  pings left 10.77.0.2
  pings right 203.0.113.1
  pings left 10.77.0.3
}

# One system call of one data thread takes a minute.
stall() {
  local pid thread
  pid=$(property vpnd@vpn0 MainPID)
  thread=$(grep -lx vpnd-data /proc/"$pid"/task/*/comm | cut -d/ -f5)
  strace -qq -o /dev/null -p "$thread" -e inject=recvmsg:delay_enter=60s &
  strace=$!
}

stuck() {
  in_host right ping -q -n -c 1 -W 1 10.77.0.1 || true
  said vpnd@vpn0 'a data thread is stuck'
}

scenario_the_watchdog_ends_a_process_whose_data_thread_is_stuck_and_the_tunnel_lives_on() {
  local strace
  mkdir -p /run/systemd/system/vpnd@vpn0.service.d
  printf '[Service]\nWatchdogSec=8\n' >/run/systemd/system/vpnd@vpn0.service.d/watchdog.conf
  systemctl daemon-reload
  systemctl reset-failed vpnd@vpn0
  systemctl restart vpnd@vpn0
  pings left 10.77.0.2
  standing >/tmp/running
  stall
  until_true stuck
  until_true said vpnd@vpn0 'Watchdog timeout'
  # Who is traced does not die before its tracer looks.
  kill "$strace"
  wait "$strace" || true
  until_true restarted vpnd@vpn0 1
  taken_over vpnd@vpn0
  pings right 10.77.0.1
  until_true as_it_was
  rm /run/systemd/system/vpnd@vpn0.service.d/watchdog.conf
  systemctl daemon-reload
}

scenario_an_idle_process_is_not_taken_for_a_stuck_one() {
  # Twenty seconds without a sign would be its end; its own are five apart.
  sleep 22
  restarted vpnd@vpn1 1
}

scenario_a_key_that_is_roots_alone_comes_as_a_credential() {
  local pid
  install -d -m700 /etc/credstore
  mv /etc/vpnd/vpn0.key /etc/credstore/vpnd.vpn0.private-key
  chown root: /etc/credstore/vpnd.vpn0.private-key
  sed -i 's/^private_key_file = .*/private_key_file = "credential:private-key"/' /etc/vpnd/vpn0.toml
  systemctl reset-failed vpnd@vpn0
  systemctl restart vpnd@vpn0
  pings left 10.77.0.2
  pid=$(property vpnd@vpn0 MainPID)
  refused nsenter -t "$pid" -m setpriv --reuid vpnd --regid vpnd --clear-groups cat /etc/credstore/vpnd.vpn0.private-key
  equal "$(wg show vpn0 public-key)" "$(public vpn0)" "the key"
}

scenario_the_newest_timestamp_is_kept_in_the_state_directory() {
  [ "$(stat -c '%U %a' /var/lib/vpnd)" = "vpnd 700" ]
  # The folder's owner is the service's user, and each of the two keys has a file.
  equal "$(find /var/lib/vpnd/ -name 'timestamp-*' | wc -l)" 2 "files"
}

scenario_sessions_with_the_kernel_are_renewed_while_pings_run() {
  local first
  mkdir -p /run/systemd/system/vpnd@vpn0.service.d
  printf '[Service]\nExecStart=\nExecStart=vpnd --config /etc/vpnd/%%i.toml --rekey-after 2 --log debug\n' \
    >/run/systemd/system/vpnd@vpn0.service.d/rekey.conf
  systemctl daemon-reload
  systemctl reset-failed vpnd@vpn0
  systemctl stop vpnd@vpn0
  # It hears nothing and would try a handshake of its own by and by; who answers one does not renew it.
  kernel_forgets_left
  systemctl start vpnd@vpn0
  pings left 10.77.0.3
  first=$(handshake wg0 vpn0)
  # Ten seconds; one initiation may follow another after five.
  pings_without_loss left 10.77.0.3
  [ "$(handshake wg0 vpn0)" -gt "$first" ] || fail "the session was not renewed"
}

scenario_a_file_that_is_wrong_is_named_and_not_tried_again() {
  cp /etc/vpnd/vpn0.toml /etc/vpnd/wrong.toml
  echo 'endpiont = "x:1"' >>/etc/vpnd/wrong.toml
  refused systemctl start vpnd@wrong
  equal "$(property vpnd@wrong NRestarts,ActiveState)" "0 failed" "restarts and state"
  said vpnd@wrong 'wrong.toml:[0-9]+.*endpiont'
  systemctl reset-failed vpnd@wrong
}

scenario_stop_leaves_nothing_behind() {
  local unit
  systemctl stop vpnd@vpn0 vpnd@vpn1
  for unit in vpnd@vpn0 vpnd@vpn1; do
    equal "$(property $unit Result,ExecMainStatus)" "success 0" "how $unit ended"
    said $unit 'stopped, nothing left behind'
  done
  diff /tmp/before <(traces)
}

scenario_removing_the_package_ends_its_tunnels_and_leaves_nothing_but_what_people_wrote() {
  local unit file
  systemctl start vpnd@vpn0 vpnd@vpn1
  pings left 10.77.0.2
  dpkg --listfiles vpnd >/tmp/files
  grep -Fx /usr/bin/vpnd /tmp/files
  dpkg --remove vpnd
  for unit in vpnd@vpn0 vpnd@vpn1; do
    equal "$(property $unit ActiveState)" inactive $unit
  done
  diff /tmp/before <(traces)
  while read -r file; do
    if [ ! -d "$file" ]; then refused test -e "$file"; fi
  done </tmp/files
  test -e /var/lib/vpnd
  dpkg --purge vpnd
  refused test -e /var/lib/vpnd
  test -s /etc/vpnd/vpn1.toml
  test -s /etc/vpnd/vpn1.key
}

scenario_no_system_call_was_refused() {
  local seen
  # Such refusals are seen here: one is provoked.
  systemd-run --quiet --wait -p SystemCallFilter=~fchmodat -p SystemCallErrorNumber=EPERM chmod 600 /etc/vpnd/vpn1.key || true
  journalctl --sync
  seen=$(journalctl -b --no-pager -o cat | grep -E '^(audit: )?(type=1326|SECCOMP)')
  grep -F 'comm="chmod"' <<<"$seen"
  # 435 is clone3, which systemd itself answers with ENOSYS: a filter cannot read its arguments (RestrictNamespaces=).
  refused grep -vE 'comm="chmod"|comm="systemd|syscall=435 ' <<<"$seen"
}
