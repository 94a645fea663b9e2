/* SPDX-License-Identifier: Apache-2.0
 *
 * A donor that exports regions over NBD (see tests/lib/nbdtest.h).
 */
#include "tests/lib/nbdtest.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/rig.h"

static const char *const args[] = {"--pool", "ram=memory:?size=256M", "--pool",
    "disk=file:DIR/disk?size=64M", "--nbd", "unix:DIR/nbd", "--log", "debug", NULL};

static uint64_t region_id(struct raw *peer, const char *name)
{
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};

	ck_assert_int_eq(raw_control(peer, &req, 0, 0), 0);
	return req.attr.id;
}

static int set_attr(struct raw *peer, const char *name, unsigned set, uint64_t size, uint32_t mode)
{
	struct pool_req req = {.op = POOL_SETATTR,
	    .id = region_id(peer, name),
	    .set = set,
	    .attr = {.size = size, .mode = mode}};

	return raw_control(peer, &req, 0, 0);
}

static void make_region(
    struct raw *peer, const char *name, uint64_t size, uint32_t mode, uint32_t handle)
{
	raw_create(peer, name, handle);
	ck_assert_int_eq(
	    raw_ask(peer, (struct frame_req){.op = FRAME_CLOSE, .handle = handle}, NULL, 0), 0);
	ck_assert_int_eq(set_attr(peer, name, POOL_SET_SIZE, size, 0), 0);
	ck_assert_int_eq(set_attr(peer, name, POOL_SET_MODE, 0, mode), 0);
}

void nbdtest_region(struct nbdtest *test, const char *name, uint64_t size, uint32_t mode)
{
	make_region(&test->peer, name, size, mode, test->next_handle++);
}

void nbdtest_region_in(
    struct nbdtest *test, const char *pool, const char *name, uint64_t size, uint32_t mode)
{
	static struct raw peer;

	raw_open(&peer, test->donor.port, pool, 1000 + test->next_handle++, 1);
	make_region(&peer, name, size, mode, test->next_handle++);
	raw_close(&peer);
}

int nbdtest_resize(struct nbdtest *test, const char *name, uint64_t size)
{
	return set_attr(&test->peer, name, POOL_SET_SIZE, size, 0);
}

int nbdtest_chmod(struct nbdtest *test, const char *name, uint32_t mode)
{
	return set_attr(&test->peer, name, POOL_SET_MODE, 0, mode);
}

int nbdtest_remove(struct nbdtest *test, const char *name)
{
	struct pool_req req = {.op = POOL_REMOVE, .name = name};

	return raw_control(&test->peer, &req, 0, 0);
}

int nbdtest_rename(struct nbdtest *test, const char *name, const char *new_name)
{
	struct pool_req req = {.op = POOL_RENAME, .name = name, .new_name = new_name};

	return raw_control(&test->peer, &req, 0, 0);
}

int nbdtest_open_write(struct nbdtest *test, const char *name)
{
	uint32_t number = test->next_handle++;
	struct pool_req req = {.op = POOL_OPEN,
	    .id = region_id(&test->peer, name),
	    .flags = POOL_READ | POOL_WRITE,
	    .number = number};
	int rc = raw_control(&test->peer, &req, 0, 0);

	if (rc == 0)
		ck_assert_int_eq(
		    raw_ask(&test->peer, (struct frame_req){.op = FRAME_CLOSE, .handle = number},
			NULL, 0),
		    0);
	return rc;
}

void nbdtest_start(struct nbdtest *test)
{
	uint8_t block[NBDTEST_BLOCK];

	memset(test, 0, sizeof(*test));
	donor_start(&test->donor, args);
	snprintf(test->path, sizeof(test->path), "%s/nbd", test->donor.dir);
	test->next_handle = 1;
	raw_open(&test->peer, test->donor.port, "ram", 1, 1);
	nbdtest_region(test, "work", NBDTEST_SIZE, 0600);
	nbdtest_region(test, "bystander", NBDTEST_SIZE, 0600);
	nbdraw_open(&test->bystander, test->path, NBD_STRUCTURED, "ram/bystander", NULL);
	memset(block, 0x5b, sizeof(block));
	ck_assert_uint_eq(nbdraw_cmd(&test->bystander, 0, NBD_C_WRITE, 0, sizeof(block), block), 0);
}

void nbdtest_unharmed(struct nbdtest *test)
{
	uint8_t block[NBDTEST_BLOCK];

	memset(block, 0x5b, sizeof(block));
	ck_assert_uint_eq(nbdraw_cmd(&test->bystander, 0, NBD_C_READ, 0, sizeof(block), NULL), 0);
	ck_assert_mem_eq(test->bystander.data, block, sizeof(block));
	ck_assert_int_eq(raw_ask(&test->peer, (struct frame_req){.op = FRAME_PING}, NULL, 0), 0);
}

void nbdtest_stop(struct nbdtest *test)
{
	nbdtest_unharmed(test);
	nbdraw_close(&test->bystander);
	raw_close(&test->peer);
	donor_stop(&test->donor);
	ck_assert_msg(access(test->path, F_OK) != 0, "the Unix socket is left");
}
