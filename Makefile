# SPDX-License-Identifier: Apache-2.0
#
# One makefile for everything; `make help` lists the targets.
#   O=DIR                 where to build (default build, or build-$(SAN))
#   SAN=address,undefined|thread   a sanitizer build
#   V=1                   show the commands
#   WERROR=0              warnings are not errors

VERSION  := 0.1.0
SAN      ?=
comma    := ,
O        ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
WERROR   ?= 1
PREFIX   ?= /usr/local
SBINDIR  ?= /sbin
DESTDIR  ?=
CC       ?= gcc
PKGS     := fuse3 sqlite3
CHECK_PKGS := check

Q := $(if $(V),,@)
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 -fno-common \
	-Wno-unused-parameter $(if $(filter 1,$(WERROR)),-Werror)
HARDEN := $(if $(SAN),,-D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fcf-protection)
OPT ?= $(if $(SAN),-O1,-O2)
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -DREMRAM_VERSION='"$(VERSION)"' -DFUSE_USE_VERSION=312
CFLAGS += -std=c11 -g $(OPT) $(WARN) $(HARDEN) -pthread $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
LDFLAGS += -pthread $(if $(SAN),-fsanitize=$(SAN),-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now)
CFLAGS += $(shell pkg-config --cflags $(PKGS))
LDLIBS += $(shell pkg-config --libs $(PKGS))

CORE_SRC     := $(wildcard core/*.c)
BACKEND_SRC  := $(wildcard backends/*.c)
FUSE_SRC     := $(wildcard fuse/*.c)
EXPORT_SRC   := $(filter-out export/remramd.c,$(wildcard export/*.c))
MOUNT_SRC    := $(filter-out mount/remram.c,$(wildcard mount/*.c))
TOOL_SRC     := $(wildcard tests/tools/*.c)
UNIT_SRC     := $(wildcard tests/unit/*.c tests/contract/*.c tests/sim/*.c)

TESTLIB_SRC  := $(wildcard tests/lib/*.c)

obj = $(patsubst %.c,$(O)/%.o,$(1))
LIB_OBJ := $(call obj,$(CORE_SRC) $(BACKEND_SRC))
PROGRAMS := $(O)/remramd $(O)/remram
TOOLS := $(patsubst tests/tools/%.c,$(O)/tools/%,$(TOOL_SRC))
UNITS := $(patsubst tests/%.c,$(O)/tests/%,$(UNIT_SRC))

all: $(PROGRAMS)

$(O)/remramd: $(call obj,export/remramd.c $(EXPORT_SRC)) $(LIB_OBJ)
$(O)/remram: $(call obj,mount/remram.c $(MOUNT_SRC) $(FUSE_SRC)) $(LIB_OBJ)
$(PROGRAMS):
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Test programs: each .c under tests/unit, tests/contract and tests/sim is one libcheck program that
# links tests/lib and everything but the programs' own main files.
$(O)/tests/%: $(O)/tests/%.o $(call obj,$(TESTLIB_SRC)) $(LIB_OBJ) $(call obj,$(EXPORT_SRC) $(FUSE_SRC) $(MOUNT_SRC))
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs $(CHECK_PKGS))
$(O)/tools/%: $(O)/tests/tools/%.o
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

tools: $(TOOLS)
units: $(UNITS)

clean:
	rm -rf build build-*

.PHONY: all tools units clean
.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
