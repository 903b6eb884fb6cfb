# Two commands are enough: `make demo` shows the tunnel, `make test` proves it. Both install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The other implementations that tests talk to are built once and kept here.
PEERS ?= $(HOME)/.cache/vpnd/peers
export VPND_PEERS := $(PEERS)
APT_DEMO := gcc libc6-dev nftables
APT_TEST := $(APT_DEMO) wireguard-tools wireguard-go iperf3 iproute2 iptables iputils-ping tcpdump strace systemd
APT_SYSTEMD := gcc libc6-dev qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs
# Quick to build rather than quick to run: tests need these peers to be right, not fast.
PEER_PROFILE := CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false

.PHONY: help demo test lint walls unit namespaces deny portable long test-systemd install install-files uninstall
.PHONY: tools-demo tools-test peers

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: tools-demo ## Two hosts in network namespaces, a tunnel, and the way a packet takes
	cargo build --release --locked
	target/release/vpnd lab

test: tools-test lint walls portable unit namespaces ## Everything CI runs; as root, since tunnels are made

lint: ## Formatting, clippy, documentation, dependencies; warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(PEERS)/bin/cargo-deny --all-features check --hide-inclusion-graph bans licenses sources

walls: ## The walls between the rooms
	cargo check --locked --lib --no-default-features
	cargo test --locked --test walls

portable: ## Without aws-lc: pure Rust alone
	cargo test --locked --lib --no-default-features -- forward noise

NAMESPACE_TESTS := $(addprefix --test ,namespaces host plane plane_udp plane_tun control lab)
unit: ## Unit tests and the model
	cargo test --locked --lib --bins --test model --test process

namespaces: peers ## Tests that make namespaces and real tunnels, with every other implementation
	cargo test --locked --no-fail-fast $(NAMESPACE_TESTS) -- --test-threads=2

long: tools-test peers ## What takes too long for CI: a real 120 s rekey, 1 GB each way, 10 minutes of traffic
	cargo test --locked --release --test long -- --ignored --test-threads=1 --nocapture

test-systemd: ## The unit under a real systemd, with the kernel's own WireGuard as a peer: a guest in qemu
	@tests/setup/packages $(APT_SYSTEMD)
	cargo build --locked --bin vpnd
	tests/systemd/run target/debug/vpnd

install: ## Binary, unit and sample files, below DESTDIR and PREFIX
	cargo build --release --locked
	@$(MAKE) --no-print-directory install-files
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemd-sysusers vpnd.conf; systemctl daemon-reload; fi

install-files:
	install -Dm755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/vpnd
	install -Dm644 systemd/vpnd@.service $(DESTDIR)/etc/systemd/system/vpnd@.service
	install -Dm644 systemd/vpnd.sysusers $(DESTDIR)/etc/sysusers.d/vpnd.conf
	install -dm700 $(DESTDIR)/etc/vpnd
PREFIX ?= /usr/local
BINARY ?= target/release/vpnd

uninstall: ## Removes what install placed; /etc/vpnd and the user stay
	rm -f $(DESTDIR)$(PREFIX)/bin/vpnd $(DESTDIR)/etc/systemd/system/vpnd@.service $(DESTDIR)/etc/sysusers.d/vpnd.conf

tools-demo:
	@tests/setup/packages $(APT_DEMO)

tools-test: peers
	@tests/setup/packages $(APT_TEST)

peers:
	@tests/setup/packages gcc libc6-dev
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) boringtun-cli@0.7.1 gotatun-cli@0.10.2 cargo-deny@0.20.2
