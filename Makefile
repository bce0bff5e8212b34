# The tasks of this checkout. `make` alone lists them.

AGENT = target/agent/x86_64-unknown-linux-gnu/agent/ferroboot-agent
RAMDISK = target/ramdisk/manifest.json
BAREMETAL = target/venv/bin/baremetal
IRONIC = target/ironic/bin/ironic
SUSHY_EMULATOR = target/sushy-tools/bin/sushy-emulator
FERROBOOT = target/debug/ferroboot

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo shell test test-lab check deny fuzz soak ramdisk ramdisk-arm64 ramdisk-riscv64 agent agent-arm64 agent-riscv64
.PHONY: firmware build dependencies build-dependencies all-dependencies FORCE

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: dependencies build $(RAMDISK) $(BAREMETAL) ## Boot real firmware on every path, and watch
	@$(FERROBOOT) lab demo

shell: dependencies build $(RAMDISK) $(BAREMETAL) ## A shell with two machines, a daemon and `baremetal`
	@$(FERROBOOT) lab shell

test: dependencies build firmware $(RAMDISK) $(BAREMETAL) ## Every test, with a fixed list of boots
	scripts/with-postgres cargo test --locked --workspace

test-lab: all-dependencies build firmware $(RAMDISK) ramdisk-arm64 $(BAREMETAL) $(IRONIC) $(SUSHY_EMULATOR) ## Every boot; resumes after an interruption
	scripts/with-postgres scripts/test-lab

check: ## Checks without machines: formatting, lints, documentation, xtask, build of the fuzz targets
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	cargo xtask check
	CUSTOM_LIBFUZZER_PATH=/not-linked/libfuzzer.a cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target

deny: ## Licences, advisories and sources of the dependencies
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --locked check

fuzz: ## Each fuzz target for a minute
	scripts/fuzz 60

MINUTES = 10
DATABASE = both
SEED =

# The two databases one after the other, each for MINUTES; without SEED a random seed is used and printed.
soak: dependencies ## Kills, full disks, bad links and floods: MINUTES=10 DATABASE=both|sqlite|postgres SEED=
	FERROBOOT_SOAK_SECONDS=$$(($(MINUTES) * 60)) FERROBOOT_SOAK_DATABASE=$(DATABASE) FERROBOOT_SOAK_SEED=$(SEED) \
		cargo test --locked --package ferroboot --test soak -- --nocapture --test-threads 1

ramdisk: build-dependencies $(RAMDISK) ## Kernel, ramdisk and boot loaders, in target/ramdisk; ramdisk-arm64, ramdisk-riscv64

# In subfolders of the x64 set, where the service expects them.
ramdisk-arm64 ramdisk-riscv64: ramdisk-%: agent-% $(RAMDISK)
	$(FERROBOOT) image build --architecture $* --output target/ramdisk/$*

agent: $(AGENT) ## The ramdisk's agent, statically linked

firmware: dependencies ## Newer builds of OVMF than the installed one, and signed boot loaders, in target/firmware
	scripts/firmware

build: build-dependencies
	cargo build --locked --workspace --bins

# Dependencies of lab and tests only: virtual machines, third-party servers, clients.
dependencies: build-dependencies
	@scripts/install-dependencies build lab

build-dependencies:
	@scripts/install-dependencies build

# Of the boots that only `make test-lab` runs, too: arm64 machines, Ironic, and machines of libvirt.
all-dependencies: dependencies
	@scripts/install-dependencies build lab lab-arm64 lab-ironic lab-libvirt

# Cargo rebuilds it only if needed, and otherwise leaves the file unchanged.
$(AGENT): build-dependencies FORCE
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --package ferroboot-agent \
		--profile agent --target x86_64-unknown-linux-gnu --target-dir target/agent

agent-arm64 agent-riscv64: agent-%: build-dependencies
	scripts/cross-agent $*

$(RAMDISK): $(AGENT) $(wildcard crates/ferroboot/src/image.rs crates/ferroboot/src/image/*) | build
	$(FERROBOOT) image build --output target/ramdisk

$(BAREMETAL): scripts/python-venv scripts/python-requirements.txt
	scripts/python-venv

$(IRONIC): scripts/python-venv scripts/ironic-requirements.txt
	scripts/python-venv ironic

$(SUSHY_EMULATOR): scripts/python-venv scripts/sushy-tools-requirements.txt | all-dependencies
	scripts/python-venv sushy-tools

FORCE:
