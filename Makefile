# Two commands are enough: `make demo` shows the tunnel, `make test` proves it. Both install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The other implementations that tests talk to are built once and kept here.
PEERS ?= $(HOME)/.cache/vpnd/peers
export VPND_PEERS := $(PEERS)
# What building takes; the last for x86-64 alone: with it packets are sealed in AVX-512 lanes.
APT_BUILD := gcc libc6-dev $(if $(filter x86_64,$(shell uname -m)),libipsec-mb-dev)
APT_DEMO := $(APT_BUILD) nftables
APT_TEST := $(APT_DEMO) wireguard-tools wireguard-go iperf3 iproute2 iptables iputils-ping tcpdump strace systemd tshark
APT_SYSTEMD := $(APT_BUILD) qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs
APT_DEB := $(APT_BUILD) binutils dpkg-dev
APT_TEST_DEB := $(APT_DEB) lintian mmdebstrap debian-archive-keyring man-db bash zsh fish
APT_PANELS := python3 python3-venv prometheus
APT_BENCH := $(APT_BUILD) iperf3 iputils-ping
# Programs to compare with; the bench measures those that it finds.
APT_BENCH_PEERS := wireguard-go wireguard-tools nebula openvpn openssl
# Quick to build rather than quick to run: tests need these peers to be right, not fast.
PEER_PROFILE := CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false

.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):( .*)?$$/\1/p' Makefile)

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: tools-demo ## Two hosts in network namespaces, a tunnel, and the way a packet takes
	cargo build --release --locked
	target/release/vpnd lab

test: tools-test lint walls portable unit book namespaces ## Everything CI runs; as root, since tunnels are made

# Links are looked at by tests/handbook.rs, which knows those of the other documents, too.
book: tools-book ## The handbook as HTML, in target/book
	$(PEERS)/bin/mdbook build docs 2>&1 | tee target/book.log
	@! grep -E 'WARN|ERROR' target/book.log

book-outputs: tools-test ## Writes what the labs print now into the handbook
	VPND_BOOK_WRITE=1 cargo test --locked --test handbook -- --test-threads=2

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

NAMESPACE_TESTS := $(addprefix --test ,namespaces torture host explain capture trace plane plane_udp plane_tun control lab handbook)
unit: ## Unit tests, the model, the order of batches, random trains of packets, the fuzzers' corpora
	cargo test --locked --lib --bins --test model --test order --test process --test sandbox --test trains --test fuzzed --test mutations
	cargo test --locked -p vpnd-bench

namespaces: peers ## Tests that make namespaces and real tunnels, with every other implementation
	cargo test --locked --no-fail-fast $(NAMESPACE_TESTS) -- --test-threads=2

# Each line for [interface]; offloads on, off, and several workers.
MATRIX := offload="auto" offload="off" workers=1 workers=2 workers=4
matrix: tools-test peers ## The namespace and interop tests with offloads on, off, with 1, 2 and 4 workers, and as nobody; takes long
	@for lines in $(foreach lines,$(MATRIX),'$(lines)'); do \
	  echo "=== [interface] $$lines"; \
	  VPND_TEST_INTERFACE="$$lines" cargo test --locked --no-fail-fast --test namespaces -- --test-threads=2 || failed+=" $$lines"; \
	done; \
	echo "=== as user 65534 with CAP_NET_ADMIN alone"; \
	VPND_TEST_AS=65534 cargo test --locked --no-fail-fast --test namespaces -- --test-threads=2 || failed+=" VPND_TEST_AS=65534"; \
	[ -z "$${failed:-}" ] || { echo "failed with:$$failed" >&2; exit 1; }

# In the versions that docs/programs-of-others.md tells of.
panels: tools-test peers ## Exporters and panels from crates.io and PyPI, unchanged, against vpnd
	@tests/setup/packages $(APT_PANELS)
	@$(PEER_PROFILE) tests/setup/crates $(PEERS)/panels prometheus_wireguard_exporter@3.6.6
	@tests/setup/pypi $(PEERS)/panels wgpeer==0.6.1 wgtrack==0.2.0 wireguard-tools==0.6.0
	cargo test --locked --test namespaces -- --ignored --nocapture --test-threads=1 panels::

long: tools-test peers ## What takes too long for CI: a real 120 s rekey, 1 GB each way, 10 minutes of traffic, a million trains, 1,000 plans' topologies
	cargo test --locked --release --test long --test trains --test explain -- --ignored --test-threads=1 --nocapture

torture: tools-test ## Floods, bad networks, failing calls, kills: each row at its full size, and the report docs/torture.md; TORTURE="--row loss --scale 0.1"
	TORTURE="$(TORTURE)" cargo test --locked --release --test torture -- --ignored --test-threads=1 --nocapture

# Needs a nightly Rust. What it keeps grows in target/fuzz, beside the small corpora that `make unit` replays; an input
# that fails lies in fuzz/artifacts, and belongs into that corpus.
FUZZ_TARGETS ?= wire noise config uapi tunnels offload
FUZZ_SECONDS ?= 600
# fuzz-target COMMAND NAME: the control sockets alone need the world.
fuzz-target = PATH="$(PEERS)/bin:$$PATH" cargo +nightly fuzz $(1) -O $(2) $$([ $(2) = uapi ] && echo --features=daemon)
fuzz: tools-fuzz ## Each fuzz target in turn for FUZZ_SECONDS; outside of CI
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p target/fuzz/$$target && echo "=== $$target" && \
	  $(call fuzz-target,run,$$target) target/fuzz/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) $$(cat fuzz/options/$$target) || exit 1; \
	done

fuzz-corpora: tools-fuzz ## What `make fuzz` found, with the corpora that are here, made as small as reaches the same code
	@for target in $(FUZZ_TARGETS); do \
	  rm -rf target/fuzz/smallest && mkdir -p target/fuzz/$$target target/fuzz/smallest && \
	  $(call fuzz-target,run,$$target) target/fuzz/smallest fuzz/corpus/$$target target/fuzz/$$target -- \
	    -set_cover_merge=1 -use_counters=0 $$(cat fuzz/options/$$target) && \
	  rm -rf fuzz/corpus/$$target && mv target/fuzz/smallest fuzz/corpus/$$target || exit 1; \
	done

mutants: ## Each security check inverted (MUTANT="words of its name": those alone): a test must notice; half an hour
	cargo test --locked --test mutations -- --ignored --nocapture

# Memory errors of what is unsafe, and of what it calls: needs a nightly Rust, and root for the tests that make devices.
SANITIZE := RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS=detect_leaks=1 \
	cargo +nightly test --locked --target $(shell uname -m)-unknown-linux-gnu --target-dir target/sanitize
sanitize: ## The unit tests of sys, plane and forward, and the data loops on real sockets, under the address sanitizer
	@tests/setup/packages gcc libc6-dev
	$(SANITIZE) --lib -- sys:: plane:: forward::
	$(SANITIZE) --test plane --test plane_udp --test plane_tun -- --test-threads=2

miri: ## The unit tests of the pure rooms, interpreted: undefined behaviour, and the portable code alone
	tests/setup/miri

advisories: ## Known vulnerabilities of dependencies; needs the RustSec database (ADVISORY_DB=FOLDER: a clone of it)
	@tests/setup/packages gcc libc6-dev git
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) cargo-deny@0.20.2
	tests/setup/advisories $(PEERS)/bin/cargo-deny

minimal-versions: ## Builds and tests with the oldest dependencies that Cargo.toml allows; needs a nightly Rust
	tests/setup/minimal-versions

i686: ## The unit tests, the model, the trains and the corpora as 32-bit programs; where Rust lacks the target, as root
	tests/i686/run

bench: tools-bench ## vpnd beside each other VPN program that is found, in turn; BENCH="--rounds 3" and such
	cargo build --release --locked
	cargo build --locked -p vpnd-bench
	target/debug/bench --out docs/bench $(BENCH)

bench-peers: ## The other programs, from Debian and from crates.io, as fast as they can be
	@tests/setup/packages $(APT_BENCH_PEERS)
	@tests/setup/packages gcc libc6-dev
	@tests/setup/crates $(PEERS)/fast boringtun-cli@0.7.1 gotatun-cli@0.10.2

bench-micro: ## What each step of a packet's walk costs
	@tests/setup/packages $(APT_BUILD)
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

tools-book:
	@tests/setup/packages gcc libc6-dev
	@CRATE_FLAGS=--no-default-features $(PEER_PROFILE) tests/setup/crates $(PEERS) mdbook@0.5.4
	@mkdir -p target

tools-fuzz:
	@tests/setup/packages g++
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) cargo-fuzz@0.13.1

tools-deb:
	@tests/setup/packages $(APT_DEB)
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) cargo-deb@3.8.0

peers:
	@tests/setup/packages gcc libc6-dev
	@$(PEER_PROFILE) tests/setup/crates $(PEERS) boringtun-cli@0.7.1 gotatun-cli@0.10.2 cargo-deny@0.20.2
