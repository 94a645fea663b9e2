/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client has been told is stable is so at the donor: FLUSH and FUA on every way to a region, over NBD,
 * over the peer protocol, and from our own client of NBD.
 *
 * The donor runs in this process, and under its region lies a disk that knows what it would have after a
 * power cut (tests/lib/ramblk.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/backend.h"
#include "core/local_pool_int.h"
#include "tests/lib/nbdraw.h"
#include "tests/lib/ramblk.h"
#include "tests/lib/serve.h"

enum { SIZE = 4 << 20, BLOCK = 4096, LONG = (3 << 20) + 1000 };

static struct serve serve;
static struct rig rig;
static struct ramblk *disk;
static uint8_t *bytes, *other_bytes, *zeros; /* SIZE of each */

/* ---- the donor ---- */

/* Makes the region's bytes lie on the disk instead of in the pool's memory, whose pages nobody has used yet. */
static void change_store(struct local_pool *lp, const char *name)
{
	struct region *region;

	pthread_mutex_lock(&lp->mu);
	region = region_table_find_name(&lp->table, name);
	ck_assert_ptr_nonnull(region);
	store_destroy(region->store);
	disk = ramblk_create(SIZE);
	ck_assert_int_eq(
	    blk_store_create(&ramblk_ops, disk, SIZE, 1, serve.workers, &region->store, NULL), 0);
	pthread_mutex_unlock(&lp->mu);
}

static void make_region(const char *name)
{
	struct client_conf conf = {.port = serve.port, .pool = "ram"};
	struct pool_req req = {.op = POOL_LOOKUP, .name = name};
	struct client client;

	ck_assert_int_eq(client_open(&client, rig.loops[0], &conf, NULL), 0);
	client_close_handle(&client, client_create(&client, name));
	ck_assert_int_eq(client_ask(&client, &req), 0);
	req = (struct pool_req){
	    .op = POOL_SETATTR, .id = req.attr.id, .set = POOL_SET_SIZE, .attr.size = SIZE};
	ck_assert_int_eq(client_ask(&client, &req), 0);
	client_close(&client);
}

static void setup(void)
{
	rig_tmpdirs_begin();
	serve_start_nbd(&serve, SIZE);
	rig_start(&rig, 1, 1);
	make_region("r");
	change_store((struct local_pool *)serve.pools[0], "r");
	bytes = malloc(SIZE);
	other_bytes = malloc(SIZE);
	zeros = calloc(1, SIZE);
	for (unsigned i = 0; i < SIZE; i++) {
		bytes[i] = (uint8_t)(i * 7 + i / BLOCK + 1);
		other_bytes[i] = (uint8_t)~bytes[i];
	}
}

static void teardown(void)
{
	rig_stop(&rig);
	serve_stop(&serve);
	ramblk_destroy(disk);
	free(bytes);
	free(other_bytes);
	free(zeros);
	rig_tmpdirs_end();
}

/* Whether the disk has the bytes (NULL: zeros) for good. */
static bool is_stable(uint64_t off, uint64_t len, const uint8_t *expected)
{
	bool same;

	pthread_mutex_lock(&disk->mu);
	same = memcmp(disk->stable + off, expected ? expected : zeros, len) == 0;
	pthread_mutex_unlock(&disk->mu);
	return same;
}

/* ---- any client of NBD ---- */

static struct nbdraw raw, other;

static void open_raw(int mode)
{
	nbdraw_open(&raw, serve.nbd, (enum nbd_mode)mode, "ram/r", NULL);
	nbdraw_open(&other, serve.nbd, (enum nbd_mode)mode, "ram/r", NULL);
}

static void close_raw(void)
{
	nbdraw_close(&raw);
	nbdraw_close(&other);
}

static uint32_t put(uint64_t off, uint64_t len)
{
	return nbdraw_cmd(&raw, 0, NBD_C_WRITE, off, len, bytes + off);
}

static uint32_t flush(struct nbdraw *who)
{
	return nbdraw_cmd(who, 0, NBD_C_FLUSH, 0, 0, NULL);
}

START_TEST(nbd_flush)
{
	open_raw(_i);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ck_assert(!is_stable(0, SIZE, bytes));
	ck_assert_uint_eq(flush(&raw), 0);
	ck_assert(is_stable(0, SIZE, bytes));
	close_raw();
}
END_TEST

/* What CAN_MULTI_CONN promises. */
START_TEST(nbd_flush_of_another_connection)
{
	open_raw(_i);
	ck_assert(raw.flags & NBD_CAN_MULTI_CONN);
	for (uint64_t off = 0; off < SIZE; off += SIZE / 8) {
		ck_assert_uint_eq(put(off, SIZE / 8), 0);
		ck_assert(!is_stable(off, SIZE / 8, bytes + off));
		ck_assert_uint_eq(flush(&other), 0);
		ck_assert(is_stable(off, SIZE / 8, bytes + off));
	}
	close_raw();
}
END_TEST

START_TEST(nbd_flush_fails)
{
	open_raw(_i);
	ck_assert_uint_eq(put(0, SIZE), 0);
	ramblk_fail(disk, 1, -EIO);
	ck_assert_uint_eq(flush(&raw), NBD_EIO);
	ramblk_fail(disk, 1, -ENOSPC);
	ck_assert_uint_eq(flush(&other), NBD_ENOSPC);
	ck_assert(!is_stable(0, SIZE, bytes));
	ck_assert_uint_eq(flush(&raw), 0);
	ck_assert(is_stable(0, SIZE, bytes));
	close_raw();
}
END_TEST

static const struct fua_case {
	uint16_t type, flags;
	uint64_t off, len;
} fua_cases[] = {
    {NBD_C_WRITE, 0, 0, BLOCK},
    {NBD_C_WRITE, 0, 5, 1},
    {NBD_C_WRITE, 0, 777, LONG}, /* in parts */
    {NBD_C_WRITE_ZEROES, 0, BLOCK, 16 * BLOCK},
    {NBD_C_WRITE_ZEROES, NBD_F_NO_HOLE, BLOCK, 16 * BLOCK},
    {NBD_C_WRITE_ZEROES, NBD_F_FAST_ZERO, 777, LONG},
    {NBD_C_TRIM, 0, BLOCK, 16 * BLOCK},
    {NBD_C_TRIM, 0, 777, LONG},
};

START_TEST(nbd_fua)
{
	open_raw(_i);
	for (size_t i = 0; i < sizeof(fua_cases) / sizeof(fua_cases[0]); i++) {
		const struct fua_case *c = &fua_cases[i];
		const uint8_t *data = c->type == NBD_C_WRITE ? other_bytes + c->off : NULL;
		unsigned flushes;

		ck_assert_uint_eq(put(0, SIZE), 0);
		ck_assert_uint_eq(flush(&raw), 0);
		flushes = disk->flushes;
		ck_assert_uint_eq(nbdraw_cmd(&raw, c->flags, c->type, c->off, c->len, data), 0);
		ck_assert_msg(
		    is_stable(c->off, c->len, bytes + c->off), "case %zu without FUA is stable", i);
		ck_assert_uint_eq(
		    nbdraw_cmd(&raw, c->flags | NBD_F_FUA, c->type, c->off, c->len, data), 0);
		ck_assert_msg(is_stable(c->off, c->len, data), "case %zu is not stable", i);
		ck_assert_uint_eq(disk->flushes, flushes);
	}
	close_raw();
}
END_TEST

START_TEST(the_socket_is_its_owners)
{
	struct stat st;
	mode_t mask;

	serve_end(&serve);
	ramblk_destroy(disk);
	mask = umask(0);
	serve_again(&serve);
	umask(mask);
	ck_assert_int_eq(stat(serve.nbd, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	make_region("r");
	change_store((struct local_pool *)serve.pools[0], "r");
}
END_TEST

/* ---- our own clients ---- */

/* Two clients that have the region open; the first one writes. */
struct user {
	struct client client;
	struct backend *backend;
	struct handle *handle;
	struct store *store;
};

static struct user users[2];

static void open_peer(struct user *user)
{
	struct client_conf conf = {.port = serve.port, .pool = "ram"};

	ck_assert_int_eq(client_open(&user->client, rig.loops[0], &conf, NULL), 0);
	ck_assert_int_eq(client_open_region(&user->client, "r",
			     POOL_READ | (user == users ? POOL_WRITE : 0), &user->handle),
	    0);
	user->store = &user->handle->store;
}

static void open_nbd(struct user *user)
{
	char uri[2 * RIG_PATH_MAX];
	struct err err;

	snprintf(uri, sizeof(uri), "nbd+unix:///ram/r?socket=%s", serve.nbd);
	ck_assert_msg(backend_open(uri, true, NULL, &user->backend, &err) == 0, "%s", err.text);
	ck_assert_int_eq(
	    user->backend->ops->region_open(user->backend, 2, false, &user->store, &err), 0);
}

static void (*const ways[])(struct user *) = {open_peer, open_nbd};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static void open_users(int way)
{
	memset(users, 0, sizeof(users));
	for (unsigned i = 0; i < 2; i++)
		ways[way](&users[i]);
}

static void close_users(void)
{
	for (unsigned i = 0; i < 2; i++) {
		if (users[i].backend) {
			store_destroy(users[i].store);
			backend_close(users[i].backend);
		} else {
			client_close_handle(&users[i].client, users[i].handle);
			client_close(&users[i].client);
		}
	}
}

static int user_write(uint64_t off, uint32_t len, const uint8_t *data, unsigned flags)
{
	return rig_write(rig.loops[0], users[0].store, off, data ? data : zeros, len, flags);
}

static int user_flush(unsigned i)
{
	return rig_op(rig.loops[0], users[i].store, STORE_FLUSH, 0, 0, 0);
}

static void user_fill(void)
{
	for (uint32_t off = 0; off < SIZE; off += 1 << 20)
		ck_assert_int_eq(user_write(off, 1 << 20, bytes + off, 0), 0);
}

START_TEST(users_flush)
{
	open_users(_i);
	user_fill();
	ck_assert(!is_stable(0, SIZE, bytes));
	ck_assert_int_eq(user_flush(0), 0);
	ck_assert(is_stable(0, SIZE, bytes));
	close_users();
}
END_TEST

START_TEST(users_flush_of_another)
{
	open_users(_i);
	for (unsigned i = 0; i < 16; i++) {
		uint32_t off = i * 64 * BLOCK;

		ck_assert_int_eq(user_write(off, 64 * BLOCK, bytes + off, 0), 0);
		ck_assert(!is_stable(off, 64 * BLOCK, bytes + off));
		ck_assert_int_eq(user_flush(1), 0);
		ck_assert(is_stable(off, 64 * BLOCK, bytes + off));
	}
	close_users();
}
END_TEST

/* Each failure is told once, to the one who asked. */
START_TEST(users_flush_fails)
{
	open_users(_i);
	user_fill();
	ramblk_fail(disk, 1, -EIO);
	ck_assert_int_eq(user_flush(0), -EIO);
	ramblk_fail(disk, 1, -ENOSPC);
	ck_assert_int_eq(user_flush(1), -ENOSPC);
	ck_assert(!is_stable(0, SIZE, bytes));
	ck_assert_int_eq(user_flush(0), 0);
	ck_assert(is_stable(0, SIZE, bytes));
	close_users();
}
END_TEST

static const struct user_case {
	enum store_op op;
	unsigned flags;
	bool zeros;
	uint32_t off, len;
} user_cases[] = {
    {STORE_WRITE, 0, false, 0, BLOCK},
    {STORE_WRITE, 0, false, 5, 1},
    {STORE_WRITE, 0, false, 777, 1 << 20},
    {STORE_WRITE, STORE_BACKGROUND, false, BLOCK, 16 * BLOCK},
    {STORE_WRITE, 0, true, 777, 16 * BLOCK}, /* a peer is told of the zeros, and not sent them */
    {STORE_ZERO, 0, true, BLOCK, 16 * BLOCK},
    {STORE_ZERO, 0, true, 777, LONG},
    {STORE_ZERO, STORE_KEEP, true, BLOCK, 16 * BLOCK},
};

static int user_case(const struct user_case *c, unsigned flags)
{
	const uint8_t *data = c->zeros ? NULL : other_bytes + c->off;

	flags |= c->flags;
	return c->op == STORE_WRITE
		   ? user_write(c->off, c->len, data, flags)
		   : rig_op(rig.loops[0], users[0].store, c->op, c->off, c->len, flags);
}

START_TEST(users_fua)
{
	open_users(_i);
	for (size_t i = 0; i < sizeof(user_cases) / sizeof(user_cases[0]); i++) {
		const struct user_case *c = &user_cases[i];
		unsigned flushes;

		user_fill();
		ck_assert_int_eq(user_flush(0), 0);
		flushes = disk->flushes;
		ck_assert_int_eq(user_case(c, 0), 0);
		ck_assert_msg(
		    is_stable(c->off, c->len, bytes + c->off), "case %zu without FUA is stable", i);
		ck_assert_int_eq(user_case(c, STORE_FUA), 0);
		ck_assert_msg(is_stable(c->off, c->len, c->zeros ? NULL : other_bytes + c->off),
		    "case %zu is not stable", i);
		ck_assert_uint_eq(disk->flushes, flushes);
	}
	close_users();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stable");
	TCase *nbd = tcase_create("nbd"), *own = tcase_create("own");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(nbd, 60);
	tcase_add_checked_fixture(nbd, setup, teardown);
	tcase_add_loop_test(nbd, nbd_flush, 0, 3);
	tcase_add_loop_test(nbd, nbd_flush_of_another_connection, 0, 3);
	tcase_add_loop_test(nbd, nbd_flush_fails, 0, 3);
	tcase_add_loop_test(nbd, nbd_fua, 0, 3);
	tcase_add_test(nbd, the_socket_is_its_owners);
	suite_add_tcase(suite, nbd);
	tcase_set_timeout(own, 60);
	tcase_add_checked_fixture(own, setup, teardown);
	tcase_add_loop_test(own, users_flush, 0, WAYS);
	tcase_add_loop_test(own, users_flush_of_another, 0, WAYS);
	tcase_add_loop_test(own, users_flush_fails, 0, WAYS);
	tcase_add_loop_test(own, users_fua, 0, WAYS);
	suite_add_tcase(suite, own);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
