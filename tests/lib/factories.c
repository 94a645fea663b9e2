/* SPDX-License-Identifier: Apache-2.0
 *
 * The stores that the contract suite runs over.
 */
#include "tests/lib/contract.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "core/backend.h"
#include "core/fault.h"
#include "tests/lib/cache_rig.h"
#include "tests/lib/ramblk.h"

/* ---- backends ---- */

struct place {
	struct backend *backend;
	char uri[RIG_PATH_MAX + 64];
	uint64_t id;
	bool single;
	int loop_fd; /* of a loop device, or -1 */
};

static void place_open(struct contract_stack *stack, bool create)
{
	struct place *place = stack->ctx;
	struct err err;

	ck_assert_msg(
	    backend_open(place->uri, place->single, stack->rig.workers, &place->backend, &err) == 0,
	    "%s", err.text);
	ck_assert_msg(place->backend->ops->region_open(
			  place->backend, place->id, create, &stack->store, &err) == 0,
	    "%s", err.text);
}

static void place_destroy(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	if (!place->single)
		ck_assert_int_eq(
		    place->backend->ops->region_remove(place->backend, place->id, NULL), 0);
	/* What was taken has been given back. */
	if (!place->single)
		ck_assert_uint_eq(place->backend->quota.used, 0);
	backend_close(place->backend);
	if (place->loop_fd >= 0)
		close(place->loop_fd);
	if (stack->dir[0])
		rig_tmpdir_remove(stack->dir);
	free(place);
}

/* A process that ends and comes back. */
static void place_crash(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	store_destroy(stack->store);
	backend_close(place->backend);
	place_open(stack, false);
}

static struct place *place_new(struct contract_stack *stack, uint64_t id, bool single)
{
	struct place *place = calloc(1, sizeof(*place));

	ck_assert(place);
	place->id = id;
	place->single = single;
	place->loop_fd = -1;
	stack->ctx = place;
	return place;
}

static bool memory_create(struct contract_stack *stack, uint64_t size)
{
	struct place *place = place_new(stack, 7, false);

	snprintf(place->uri, sizeof(place->uri), "memory:?size=%llu", (unsigned long long)size);
	place_open(stack, true);
	return true;
}

static long file_system(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) ? 0 : (long)fs.f_type;
}

static bool directory_create(struct contract_stack *stack, const char *where, const char *option)
{
	struct place *place = place_new(stack, 7, false);

	rig_tmpdir(where, stack->dir);
	/* What others allocate (ahead of writes, for example) is not known to the block. */
	if (file_system(stack->dir) != EXT4_SUPER_MAGIC && file_system(stack->dir) != TMPFS_MAGIC)
		stack->flags &= ~(unsigned)CONTRACT_SPARSE;
	snprintf(place->uri, sizeof(place->uri), "file:%s/pool%s", stack->dir, option);
	place_open(stack, true);
	return true;
}

static bool file_disk_create(struct contract_stack *stack, uint64_t size)
{
	return directory_create(stack, NULL, "");
}

static bool file_tmpfs_create(struct contract_stack *stack, uint64_t size)
{
	return file_system("/dev/shm") == TMPFS_MAGIC && directory_create(stack, "/dev/shm", "");
}

/* The quota is as small as the region: at its end nothing is left for a mistake. */
static bool file_quota_create(struct contract_stack *stack, uint64_t size)
{
	char option[64];

	snprintf(option, sizeof(option), "?size=%llu", (unsigned long long)size);
	return directory_create(stack, NULL, option);
}

static bool file_single_create(struct contract_stack *stack, uint64_t size)
{
	struct place *place = place_new(stack, 2, true);

	rig_tmpdir(NULL, stack->dir);
	if (file_system(stack->dir) != EXT4_SUPER_MAGIC && file_system(stack->dir) != TMPFS_MAGIC)
		stack->flags &= ~(unsigned)CONTRACT_SPARSE;
	snprintf(place->uri, sizeof(place->uri), "file:%s/one?size=%llu", stack->dir,
	    (unsigned long long)size);
	place_open(stack, false);
	return true;
}

/* A loop device over path that goes with its last descriptor; -1 if this machine has none to give. */
static int loop_device(const char *path, char name[32])
{
	int file = open(path, O_RDWR | O_CLOEXEC);
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int fd = -1;

	for (unsigned tries = 0; control >= 0 && fd < 0 && tries < 8; tries++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		struct loop_config config = {
		    .fd = (unsigned)file,
		    .block_size = 512,
		    .info.lo_flags = LO_FLAGS_AUTOCLEAR,
		};

		if (number < 0)
			break;
		snprintf(name, 32, "/dev/loop%d", number);
		fd = open(name, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
			close(fd); /* somebody else was faster, or loops are not allowed here */
			fd = -1;
		}
	}
	if (control >= 0)
		close(control);
	close(file);
	return fd;
}

static bool device_create(struct contract_stack *stack, uint64_t size)
{
	struct place *place = place_new(stack, 2, true);
	char path[RIG_PATH_MAX + 8], name[32];
	int fd;

	rig_tmpdir(NULL, stack->dir);
	snprintf(path, sizeof(path), "%s/disk", stack->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	close(fd);
	place->loop_fd = loop_device(path, name);
	if (place->loop_fd < 0) {
		rig_tmpdir_remove(stack->dir);
		free(place);
		return false;
	}
	snprintf(place->uri, sizeof(place->uri), "file:%s", name);
	place_open(stack, false);
	return true;
}

/* ---- the blocking adapter ---- */

static bool ramblk_begin(
    struct contract_stack *stack, const struct blk_ops *ops, bool cached, uint64_t size)
{
	struct ramblk *disk = ramblk_create(size);

	disk->cached = cached;
	stack->ctx = disk;
	ck_assert_int_eq(
	    blk_store_create(ops, disk, size, 1, stack->rig.workers, &stack->store, NULL), 0);
	return true;
}

static bool blk_create(struct contract_stack *stack, uint64_t size)
{
	return ramblk_begin(stack, &ramblk_ops, false, size);
}

static bool blk_cached_create(struct contract_stack *stack, uint64_t size)
{
	return ramblk_begin(stack, &ramblk_ops, true, size);
}

static bool blk_plain_create(struct contract_stack *stack, uint64_t size)
{
	return ramblk_begin(stack, &ramblk_plain_ops, false, size);
}

static void blk_destroy(struct contract_stack *stack)
{
	store_destroy(stack->store);
	ramblk_destroy(stack->ctx);
}

static void blk_crash(struct contract_stack *stack)
{
	struct ramblk *disk = stack->ctx;
	uint64_t size = disk->size;

	store_destroy(stack->store);
	ramblk_crash(disk);
	disk->open = true;
	ck_assert_int_eq(
	    blk_store_create(&ramblk_ops, disk, size, 1, stack->rig.workers, &stack->store, NULL),
	    0);
}

/* ---- the fault layer, passing everything ---- */

static bool fault_memory_create(struct contract_stack *stack, uint64_t size)
{
	memory_create(stack, size);
	contract_add_fault(stack);
	return true;
}

static bool fault_file_create(struct contract_stack *stack, uint64_t size)
{
	file_disk_create(stack, size);
	contract_add_fault(stack);
	return true;
}

static bool fault_blk_create(struct contract_stack *stack, uint64_t size)
{
	blk_create(stack, size);
	contract_add_fault(stack);
	return true;
}

/* … and one that holds each completion back a little. */
static bool fault_late_create(struct contract_stack *stack, uint64_t size)
{
	blk_create(stack, size);
	fault_add(contract_add_fault(stack),
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .jitter_ns = 200000});
	return true;
}

/* ---- managed regions: a cache over memory over memory ---- */

struct managed {
	struct cache_rig cr;
	struct cache_rig_conf conf;
	struct contract_stack *stack;
};

static void managed_build(void *ctx)
{
	struct managed *managed = ctx;

	cache_rig_build(&managed->cr, managed->stack->rig.loops[0], managed->stack->rig.workers,
	    &managed->conf);
}

static struct managed *managed_create(
    struct contract_stack *stack, const struct cache_rig_conf *conf, uint64_t size)
{
	struct managed *managed = calloc(1, sizeof(*managed));

	ck_assert(managed);
	managed->stack = stack;
	managed->conf = *conf;
	managed->conf.size = size;
	stack->ctx = managed;
	rig_call(stack->rig.loops[0], managed_build, managed);
	stack->store = managed->cr.store;
	return managed;
}

static void managed_stop(void *ctx)
{
	struct managed *managed = ctx;

	store_destroy(managed->stack->store); /* with the layers above the handle */
	managed->cr.store = NULL;
	cache_rig_stop(&managed->cr);
}

static void managed_free(void *ctx)
{
	cache_rig_free(&((struct managed *)ctx)->cr);
}

static void managed_destroy(struct contract_stack *stack)
{
	struct managed *managed = stack->ctx;

	rig_call(stack->rig.loops[0], managed_stop, managed);
	while (!managed->cr.stopped)
		sched_yield();
	rig_call(stack->rig.loops[0], managed_free, managed);
	free(managed);
}

static bool cache_plain_create(struct contract_stack *stack, uint64_t size)
{
	managed_create(stack, &(struct cache_rig_conf){.pull = PULL_ALL, .interval_ms = 5}, size);
	return true;
}

/* Few of everything, so that requests wait for it, and writers at both bounds. */
static bool cache_tight_create(struct contract_stack *stack, uint64_t size)
{
	managed_create(stack,
	    &(struct cache_rig_conf){
		.cache_size = 1,
		.max_dirty = 256 * 1024,
		.ops = 64,
		.buffers = 8,
	    },
	    size);
	return true;
}

/* Both sides answer late, and out of order. */
static bool cache_late_create(struct contract_stack *stack, uint64_t size)
{
	struct managed *managed =
	    managed_create(stack, &(struct cache_rig_conf){.cache_size = 1}, size);

	fault_add(managed->cr.remote,
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .jitter_ns = 400000});
	fault_add(managed->cr.local,
	    &(struct fault_rule){.kind = FAULT_DELAY, .after = true, .jitter_ns = 50000});
	return true;
}

#define EXACT (CONTRACT_LOOPS | CONTRACT_SPARSE)

const struct contract_factory *const contract_factories[] = {
    &(struct contract_factory){"memory", EXACT, memory_create, place_destroy, NULL},
    &(struct contract_factory){"file-disk", EXACT, file_disk_create, place_destroy, place_crash},
    &(struct contract_factory){"file-tmpfs", EXACT, file_tmpfs_create, place_destroy, place_crash},
    &(struct contract_factory){"file-quota", EXACT, file_quota_create, place_destroy, place_crash},
    &(struct contract_factory){
	"file-single", EXACT, file_single_create, place_destroy, place_crash},
    &(struct contract_factory){
	"file-device", CONTRACT_LOOPS | CONTRACT_FIXED, device_create, place_destroy, place_crash},
    &(struct contract_factory){"blk", EXACT, blk_create, blk_destroy, blk_crash},
    &(struct contract_factory){"blk-cached", EXACT, blk_cached_create, blk_destroy, blk_crash},
    &(struct contract_factory){"blk-plain", CONTRACT_LOOPS, blk_plain_create, blk_destroy, NULL},
    &(struct contract_factory){"fault-memory", EXACT, fault_memory_create, place_destroy, NULL},
    &(struct contract_factory){"fault-file", EXACT, fault_file_create, place_destroy, NULL},
    &(struct contract_factory){"fault-blk", EXACT, fault_blk_create, blk_destroy, NULL},
    &(struct contract_factory){"fault-late", EXACT, fault_late_create, blk_destroy, NULL},
    &(struct contract_factory){"cache", 0, cache_plain_create, managed_destroy, NULL},
    &(struct contract_factory){"cache-tight", 0, cache_tight_create, managed_destroy, NULL},
    &(struct contract_factory){"cache-late", 0, cache_late_create, managed_destroy, NULL},
    NULL,
};
