# Signals, crashes, mistakes, and the end.

scenario_a_hangup_is_named_in_the_journal_and_ends_nothing() {
  local pid
  pid=$(property vpnd@vpn0 MainPID)
  systemctl kill -s HUP vpnd@vpn0
  until_true 10 said vpnd@vpn0 'SIGHUP'
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
  ! systemctl reload vpnd@vpn0
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

scenario_after_kill_9_systemd_starts_it_anew_and_nothing_is_doubled() {
  local unit
  traces | grep -v ^/proc >/tmp/running
  systemctl kill -s KILL vpnd@vpn0
  systemctl kill -s KILL vpnd@vpn1
  for unit in vpnd@vpn0 vpnd@vpn1; do
    until_true 20 restarted $unit 1
    said $unit 'removed the socket file of a daemon that was killed'
  done
  said vpnd@vpn1 'removed what a killed daemon left behind'
  until_true 10 as_before
  # right waits until it is spoken to: left and the kernel begin.
  pings left 10.77.0.2
  pings right 203.0.113.1
  pings left 10.77.0.3
}

scenario_sessions_with_the_kernel_are_renewed_while_pings_run() {
  local first
  mkdir -p /run/systemd/system/vpnd@vpn0.service.d
  printf '[Service]\nExecStart=\nExecStart=vpnd --config /etc/vpnd/%%i.toml --rekey-after 2 --log debug\n' \
    >/run/systemd/system/vpnd@vpn0.service.d/rekey.conf
  systemctl daemon-reload
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

scenario_no_system_call_was_refused() {
  local seen
  # Such refusals are seen here: one is provoked.
  systemd-run --quiet --wait -p SystemCallFilter=~fchmodat -p SystemCallErrorNumber=EPERM chmod 600 /etc/vpnd/vpn0.key || true
  journalctl --sync
  seen=$(journalctl -b --no-pager -o cat | grep -E '^(audit: )?(type=1326|SECCOMP)')
  grep -F 'comm="chmod"' <<<"$seen"
  # 435 is clone3, which systemd itself answers with ENOSYS: a filter cannot read its arguments (RestrictNamespaces=).
  refused grep -vE 'comm="chmod"|comm="systemd|syscall=435 ' <<<"$seen"
}
