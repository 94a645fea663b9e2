# SPDX-License-Identifier: Apache-2.0
#
# One makefile for everything; `make help` lists the targets and these settings:
#
#   O=DIR                  where to build (default build, or build-$(SAN))
#   SAN=address,undefined  a build with sanitizers; SAN=thread
#   V=1                    show the commands
#   WERROR=0               warnings are not errors
#   PREFIX=DIR             where to install (default /usr/local); SBINDIR, SYSCONFDIR, DESTDIR too
#   FUZZ_SECONDS=N         how long each fuzz target runs (default 20)
#   CC, CFLAGS, CPPFLAGS, LDFLAGS   as everywhere; what stands there comes last
#
# Targets that need packages install them first (scripts/deps.sh), and then call make again: what a
# package brings is looked up only when something is compiled.

VERSION      := 0.1.0
comma        := ,
SAN          ?=
O            ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
WERROR       ?= 1
FUZZ_SECONDS ?= 20
PREFIX       ?= /usr/local
SBINDIR      ?= /sbin
SYSCONFDIR   ?= /etc
DESTDIR      ?=
ifeq ($(origin CC),default)
CC           := gcc
endif
Q            := $(if $(V),,@)

# ---- flags ----------------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 \
	-Wno-unused-parameter $(if $(findstring clang,$(CC)),-Wno-format-nonliteral) \
	$(if $(filter 1,$(WERROR)),-Werror)
OPT ?= $(if $(SAN),-O1,-O2)
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fcf-protection)
HARDEN_LINK := $(if $(SAN),,-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now)
# The sanitizers' flags differ between compiling and linking for fuzz targets only.
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
SAN_COMPILE := $(subst fuzzer,fuzzer-no-link,$(SAN_FLAGS))
SAN_LINK := $(SAN_FLAGS)

# pkg-config is asked once, when the first recipe needs the answer.
pkg = $(or $(shell pkg-config $(1) 2>/dev/null),$(error packages are missing ($(1)): \
	run `scripts/deps.sh build` as root))
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(call pkg,--cflags fuse3 sqlite3 libnbd))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(call pkg,--libs fuse3 sqlite3))$(PKG_LIBS)
# The programs load libnbd when they need it (backends/nbd_lib.h).
NBD_LIBS = $(eval NBD_LIBS := $$(call pkg,--libs libnbd))$(NBD_LIBS)
CHECK_LIBS = $(eval CHECK_LIBS := $$(call pkg,--libs check))$(CHECK_LIBS)

ALL_CPPFLAGS = -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=312 \
	-DREMRAM_VERSION='"$(VERSION)"' $(CPPFLAGS)
ALL_CFLAGS = -std=c11 -g $(OPT) -pthread -fno-common $(WARN) $(HARDEN) $(SAN_COMPILE) $(PKG_CFLAGS) \
	$(CFLAGS)
ALL_LDFLAGS = -pthread -Wl$(comma)--as-needed $(HARDEN_LINK) $(SAN_LINK) $(LDFLAGS)

# ---- what there is to build -----------------------------------------------------------------------

obj = $(patsubst %.c,$(O)/%.o,$(1))

ENGINE_OBJ   := $(call obj,$(wildcard core/*.c backends/*.c))
FUSE_OBJ     := $(call obj,$(wildcard fuse/*.c))
EXPORT_OBJ   := $(call obj,$(filter-out export/remramd.c,$(wildcard export/*.c)))
MOUNT_OBJ    := $(call obj,$(filter-out mount/remram.c,$(wildcard mount/*.c)))
TEST_LIB_OBJ := $(call obj,$(wildcard tests/lib/*.c))

PROGRAMS := $(O)/remramd $(O)/remram
TOOLS    := $(patsubst tests/tools/%.c,$(O)/tools/%,$(wildcard tests/tools/*.c))
UNITS    := $(patsubst %.c,$(O)/%,$(wildcard tests/unit/*.c tests/contract/*.c))
FUZZERS  := $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/*.c))

all: $(PROGRAMS) ## the programs, remramd and remram (the default)

$(O)/remramd: $(O)/export/remramd.o $(EXPORT_OBJ) $(ENGINE_OBJ)
$(O)/remram: $(O)/mount/remram.o $(MOUNT_OBJ) $(FUSE_OBJ) $(EXPORT_OBJ) $(ENGINE_OBJ)
# A tool is one file of tests/tools; proxy has modules in a folder beside it.
$(TOOLS): $(O)/tools/%: $(O)/tests/tools/%.o
$(O)/tools/proxy: $(call obj,$(wildcard tests/tools/proxy/*.c))
# A test program is one file of tests/unit or tests/contract, with tests/lib and all of the
# programs but their main files.
$(UNITS) $(FUZZERS): $(O)/tests/%: $(O)/tests/%.o $(TEST_LIB_OBJ) $(EXPORT_OBJ) $(MOUNT_OBJ) $(FUSE_OBJ) \
	$(ENGINE_OBJ)
$(UNITS) $(FUZZERS): LIBS = $(CHECK_LIBS) $(NBD_LIBS)
$(TOOLS): LIBS = $(NBD_LIBS)

$(PROGRAMS) $(TOOLS) $(UNITS) $(FUZZERS):
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(PKG_LIBS)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

tools: $(TOOLS)
units: $(UNITS)
everything: $(PROGRAMS) $(TOOLS) $(UNITS)
fuzzers: $(FUZZERS)

# ---- tests ----------------------------------------------------------------------------------------

# As many jobs as there are processors, unless the caller said how many.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
SUBMAKE = +$(Q)$(MAKE) $(if $(V),,-s) --no-print-directory $(JOBS)

check: ## installs what is missing, builds everything, runs every test (as root: with real mounts)
	$(Q)scripts/deps.sh build test
	$(Q)scripts/check-includes.sh
	$(SUBMAKE) everything
	$(Q)O=$(O) tests/run.sh

check-asan: ## the tests that sanitizers can watch, under AddressSanitizer and UBSan
	$(Q)scripts/check-sanitized.sh address,undefined

check-tsan: ## the same under ThreadSanitizer
	$(Q)scripts/check-sanitized.sh thread

check-valgrind: ## unit and contract programs under valgrind
	$(Q)scripts/deps.sh build test
	$(SUBMAKE) units
	$(Q)O=$(O) scripts/check-valgrind.sh

fuzz: ## replays the corpus, then runs each fuzz target for FUZZ_SECONDS
	$(Q)scripts/deps.sh build test fuzz
	$(SUBMAKE) O=build-fuzz CC=clang SAN=fuzzer,address,undefined WERROR=0 fuzzers
	$(Q)O=build-fuzz scripts/fuzz.sh $(FUZZ_SECONDS)

lint: ## format, clang-tidy, cppcheck, shellcheck, man pages, include direction
	$(Q)scripts/deps.sh build test lint
	$(Q)scripts/lint.sh

format: ## rewrites the sources as .clang-format says
	$(Q)scripts/lint.sh --format

bench: ## measures against peers in the same run; results in docs/bench
	$(Q)O=$(O) scripts/bench.sh

demo: ## shows it working on this machine, and leaves nothing behind
	$(Q)scripts/deps.sh build
	$(SUBMAKE) all tools
	$(Q)O=$(O) scripts/demo.sh

# ---- installation ---------------------------------------------------------------------------------

INSTALL_ENV = O='$(O)' DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SBINDIR='$(SBINDIR)' \
	SYSCONFDIR='$(SYSCONFDIR)'

install: all ## programs, mount helpers, man pages, systemd unit, examples
	$(Q)$(INSTALL_ENV) scripts/install.sh

uninstall: ## removes what install made, and nothing else
	$(Q)$(INSTALL_ENV) scripts/uninstall.sh

clean: ## removes all build directories
	rm -rf build build-*

help: ## this list
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'
	@echo
	@echo "Settings:"
	@sed -n '/^# One makefile/,/^$$/s/^#   \([A-Z].*\)/  \1/p' Makefile

.PHONY: all tools units everything fuzzers check check-asan check-tsan check-valgrind fuzz lint format \
	bench demo install uninstall clean help
.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
