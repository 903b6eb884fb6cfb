# Two commands are enough: `make demo` shows the tunnel, `make test` proves it. Both install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The other implementations that tests talk to are built once and kept here.
PEERS ?= $(HOME)/.cache/vpnd/peers
export VPND_PEERS := $(PEERS)
APT_DEMO := gcc libc6-dev nftables
APT_TEST := $(APT_DEMO) wireguard-tools wireguard-go iperf3 iproute2 iptables iputils-ping tcpdump strace systemd
APT_SYSTEMD := gcc libc6-dev qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs
APT_DEB := gcc libc6-dev binutils dpkg-dev
APT_TEST_DEB := $(APT_DEB) lintian mmdebstrap debian-archive-keyring man-db bash zsh fish
APT_BENCH := gcc libc6-dev iperf3 iputils-ping
# Programs to compare with; the bench measures those that it finds.
APT_BENCH_PEERS := wireguard-go wireguard-tools nebula openvpn openssl
# Quick to build rather than quick to run: tests need these peers to be right, not fast.
PEER_PROFILE := CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false

.PHONY: help demo test lint walls unit namespaces deny portable matrix long fuzz test-systemd deb test-deb \
	test-reproducible install install-files uninstall tools-demo tools-test tools-deb peers bench bench-peers bench-micro tools-bench

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: tools-demo ## Two hosts in network namespaces, a tunnel, and the way a packet takes
	cargo build --release --locked
	target/release/vpnd lab

test: tools-test lint walls portable unit namespaces ## Everything CI runs; as root, since tunnels are made

lint: ## Formatting, clippy, documentation, dependencies; warnings are errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	$(PEERS)/bin/cargo-deny --workspace --all-features check --hide-inclusion-graph bans licenses sources

walls: ## The walls between the rooms
	cargo check --locked --lib --no-default-features
	cargo test --locked --test walls

portable: ## Without aws-lc: pure Rust alone
	cargo test --locked --lib --no-default-features -- forward noise

NAMESPACE_TESTS := $(addprefix --test ,namespaces host plane plane_udp plane_tun control lab trace)
unit: ## Unit tests, the model, the order of batches, random trains of packets
	cargo test --locked --lib --bins --test model --test order --test process --test trains
	cargo test --locked -p vpnd-bench

namespaces: peers ## Tests that make namespaces and real tunnels, with every other implementation
	cargo test --locked --no-fail-fast $(NAMESPACE_TESTS) -- --test-threads=2

# Each line for [interface]; offloads on, off, and several workers.
MATRIX := offload="auto" offload="off" workers=1 workers=2 workers=4
matrix: tools-test peers ## The namespace and interop tests with offloads on, off, and with 1, 2 and 4 workers; takes long
	@for lines in $(foreach lines,$(MATRIX),'$(lines)'); do \
	  echo "=== [interface] $$lines"; \
	  VPND_TEST_INTERFACE="$$lines" cargo test --locked --no-fail-fast --test namespaces -- --test-threads=2 || failed+=" $$lines"; \
	done; [ -z "$${failed:-}" ] || { echo "failed with:$$failed" >&2; exit 1; }

long: tools-test peers ## What takes too long for CI: a real 120 s rekey, 1 GB each way, 10 minutes of traffic, a million trains
	cargo test --locked --release --test long --test trains -- --ignored --test-threads=1 --nocapture

# Needs a nightly Rust, a C++ compiler, and `cargo install cargo-fuzz`. What it keeps grows in target/fuzz, beside the
# small corpus that `make unit` replays; an input that fails lies in fuzz/artifacts, and belongs into that corpus.
fuzz: ## Vnet headers and trains of the fuzzer's choice for FUZZ_SECONDS; outside of CI
	@tests/setup/packages g++
	mkdir -p target/fuzz
	cargo +nightly fuzz run offload target/fuzz fuzz/corpus/offload -- -max_len=1200 -max_total_time=$(FUZZ_SECONDS)
FUZZ_SECONDS ?= 600

bench: tools-bench ## vpnd beside each other VPN program that is found, in turn; BENCH="--rounds 3" and such
	cargo build --release --locked
	cargo build --locked -p vpnd-bench
	target/debug/bench --out docs/bench $(BENCH)

bench-peers: ## The other programs, from Debian and from crates.io, as fast as they can be
	@tests/setup/packages $(APT_BENCH_PEERS)
	@tests/setup/packages gcc libc6-dev
	@tests/setup/crates $(PEERS)/fast boringtun-cli@0.7.1 gotatun-cli@0.10.2

bench-micro: ## What each step of a packet's walk costs
	@tests/setup/packages gcc libc6-dev
	cargo bench --locked -p vpnd-micro
	cargo run --quiet --locked -p vpnd-bench -- --micro target/criterion

# The same sources make the same bytes, wherever they lie and whoever builds them: no path of this machine and no moment
# but that of the changelog gets into the package.
PACKAGE := target/package
CARGO_FOLDER = $(or $(CARGO_HOME),$(HOME)/.cargo)
AS_ELSEWHERE = SOURCE_DATE_EPOCH=$$(date -d "$$(sed -n 's/^ -- .*>  //p' packaging/changelog | head -n 1)" +%s) \
	RUSTFLAGS="--remap-path-prefix=$(CURDIR)=/vpnd --remap-path-prefix=$(CARGO_FOLDER)=/cargo" \
	CFLAGS="-ffile-prefix-map=$(CURDIR)=/vpnd -ffile-prefix-map=$(CARGO_FOLDER)=/cargo" LC_ALL=C TZ=UTC
DEB_REVISION ?= 1
# Not target/debian, which cargo-deb empties.
DEB_FOLDER ?= target/deb
# package-parts FOLDER: what the program that lies there writes for its package.
define package-parts
@rm -rf $(PACKAGE) && mkdir -p $(PACKAGE)/man
$(1)/vpnd man $(PACKAGE)/man
for shell in bash zsh fish; do $(1)/vpnd completions $$shell >$(PACKAGE)/vpnd.$$shell; done
endef
deb: tools-deb ## The Debian package, in target/deb
	$(AS_ELSEWHERE) cargo build --release --locked --bin vpnd
	@mkdir -p $(DEB_FOLDER)
	$(call package-parts,target/release)
	$(AS_ELSEWHERE) $(PEERS)/bin/cargo-deb --no-build --locked --quiet --deb-revision $(DEB_REVISION) --output $(DEB_FOLDER)/

test-deb: deb ## Installs, upgrades, removes and purges the package in a Debian of its own; lintian; as root, some minutes
	@tests/setup/packages $(APT_TEST_DEB)
	$(MAKE) --no-print-directory deb DEB_REVISION=2 DEB_FOLDER=target/package-test
	tests/package/run target/deb target/package-test

test-reproducible: deb ## Builds the package once more in another folder, and compares the bytes; another release build
	tests/package/again "$$(echo target/deb/vpnd_*-$(DEB_REVISION)_*.deb)"

# The same package in all but the program, which is the quick build.
test-systemd: tools-deb ## The package under a real systemd, with the kernel's own WireGuard as a peer: a guest in qemu
	@tests/setup/packages $(APT_SYSTEMD)
	cargo build --locked --bin vpnd
	$(call package-parts,target/debug)
	@mkdir -p target/systemd
	$(PEERS)/bin/cargo-deb --no-build --locked --quiet --profile dev --strip --fast --output target/systemd/vpnd.deb
	tests/systemd/run target/systemd/vpnd.deb

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

tools-bench:
	@tests/setup/packages $(APT_BENCH)

tools-test: peers
	@tests/setup/packages $(APT_TEST)

tools-deb:
	@tests/setup/packages $(APT_DEB)
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) cargo-deb@3.8.0

peers:
	@tests/setup/packages gcc libc6-dev
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) boringtun-cli@0.7.1 gotatun-cli@0.10.2 cargo-deny@0.20.2
