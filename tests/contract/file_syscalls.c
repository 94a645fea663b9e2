/* SPDX-License-Identifier: Apache-2.0
 *
 * The file backend over a kernel that does less than it could, and one that fails.
 *
 * This program has its own versions of the system calls that the backend makes, in place of libc's:
 * they transfer less than asked, are interrupted, lack features, or fail the n-th time.  The whole
 * contract suite runs over the first three; over the last a life in which each call fails in turn.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/backend.h"
#include "tests/lib/contract.h"

/* ---- the system calls ---- */

enum lack {
	LACK_PUNCH = 1,
	LACK_ZERO_RANGE = 2,
	LACK_DSYNC = 4,
	LACK_NOWAIT = 8,
	SHORT = 16, /* every transfer is short, every other call is interrupted */
};

static _Atomic unsigned lack;
static _Atomic unsigned calls; /* those that can fail */
static _Atomic unsigned fail_call; /* the how manieth of them fails; 0: none */
static int fail_errno;
static _Atomic unsigned stable; /* writes with RWF_DSYNC, and syncs */

static bool fails(void)
{
	unsigned n = ++calls;

	if (n == fail_call) {
		errno = fail_errno;
		return true;
	}
	if (lack & SHORT && n % 2) {
		errno = EINTR;
		return true;
	}
	return false;
}

/* How much of len bytes a short transfer takes. */
static size_t shorter(size_t len)
{
	return lack & SHORT && len > 1 ? 1 + len / 3 : len;
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	return fails() ? -1 : syscall(SYS_pread64, fd, buf, shorter(len), off);
}

ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t off, int flags)
{
	struct iovec one = {iov->iov_base, shorter(iov->iov_len)};

	if (flags & RWF_NOWAIT && lack & LACK_NOWAIT) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return syscall(SYS_preadv2, fd, &one, 1, (unsigned long)off, 0ul, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t off, int flags)
{
	struct iovec one = {iov->iov_base, shorter(iov->iov_len)};

	if (flags & RWF_DSYNC && lack & LACK_DSYNC) {
		errno = EOPNOTSUPP;
		return -1;
	}
	stable += flags & RWF_DSYNC ? 1 : 0;
	return fails() ? -1 : syscall(SYS_pwritev2, fd, &one, 1, (unsigned long)off, 0ul, flags);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	if ((mode & FALLOC_FL_PUNCH_HOLE && lack & LACK_PUNCH) ||
	    (mode & FALLOC_FL_ZERO_RANGE && lack & LACK_ZERO_RANGE)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return fails() ? -1 : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int ftruncate64(int fd, off64_t size)
{
	return fails() ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int fdatasync(int fd)
{
	stable++;
	return fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* ---- stacks ---- */

struct place {
	struct backend *backend;
};

static void place_open(struct contract_stack *stack, bool create)
{
	struct place *place = stack->ctx;
	char uri[RIG_PATH_MAX + 16];
	struct err err;

	snprintf(uri, sizeof(uri), "file:%s/pool", stack->dir);
	ck_assert_msg(backend_open(uri, false, stack->rig.workers, &place->backend, &err) == 0,
	    "%s", err.text);
	ck_assert_msg(
	    place->backend->ops->region_open(place->backend, 2, create, &stack->store, &err) == 0,
	    "%s", err.text);
}

static bool lacking_create(struct contract_stack *stack, unsigned what)
{
	stack->ctx = calloc(1, sizeof(struct place));
	rig_tmpdir(NULL, stack->dir);
	place_open(stack, true);
	lack = what;
	return true;
}

static void lacking_destroy(struct contract_stack *stack)
{
	struct place *place = stack->ctx;

	lack = 0;
	store_destroy(stack->store);
	ck_assert_int_eq(place->backend->ops->region_remove(place->backend, 2, NULL), 0);
	ck_assert_uint_eq(place->backend->quota.used, 0);
	backend_close(place->backend);
	rig_tmpdir_remove(stack->dir);
	free(place);
}

static void lacking_crash(struct contract_stack *stack)
{
	store_destroy(stack->store);
	backend_close(((struct place *)stack->ctx)->backend);
	place_open(stack, false);
}

static bool short_create(struct contract_stack *stack, uint64_t size)
{
	return lacking_create(stack, SHORT);
}

static bool no_punch_create(struct contract_stack *stack, uint64_t size)
{
	return lacking_create(stack, LACK_PUNCH | LACK_DSYNC);
}

static bool no_zero_range_create(struct contract_stack *stack, uint64_t size)
{
	return lacking_create(stack, LACK_ZERO_RANGE | LACK_NOWAIT);
}

static bool nothing_create(struct contract_stack *stack, uint64_t size)
{
	return lacking_create(
	    stack, LACK_PUNCH | LACK_ZERO_RANGE | LACK_DSYNC | LACK_NOWAIT | SHORT);
}

static const struct contract_factory *const lacking[] = {
    &(struct contract_factory){
	"short", CONTRACT_LOOPS, short_create, lacking_destroy, lacking_crash},
    &(struct contract_factory){
	"no-punch", CONTRACT_LOOPS, no_punch_create, lacking_destroy, lacking_crash},
    &(struct contract_factory){
	"no-zero-range", CONTRACT_LOOPS, no_zero_range_create, lacking_destroy, lacking_crash},
    &(struct contract_factory){
	"nothing", CONTRACT_LOOPS, nothing_create, lacking_destroy, lacking_crash},
    NULL,
};

/* ---- failures ---- */

enum { BLOCK = 4096, STEPS = 12 };

static const struct contract_factory plain = {.name = "plain", .destroy = lacking_destroy};

struct failing {
	struct contract_stack stack;
	unsigned errors;
	unsigned lack;
	bool bytes_known[STEPS * 4]; /* per block */
	uint8_t bytes[STEPS * 4];
};

static void expect(struct failing *f, int rc, unsigned block, unsigned count, uint8_t value)
{
	f->errors += rc != 0;
	ck_assert(rc == 0 || rc == -fail_errno);
	for (unsigned b = block; b < block + count; b++) {
		f->bytes_known[b] = rc == 0;
		f->bytes[b] = value;
	}
}

static int step_write(
    struct failing *f, unsigned block, unsigned count, uint8_t value, unsigned flags)
{
	uint8_t buf[4 * BLOCK];

	memset(buf, value, sizeof(buf));
	return rig_write(f->stack.rig.loops[0], f->stack.store, (uint64_t)block * BLOCK, buf,
	    count * BLOCK, flags);
}

static int step(struct failing *f, enum store_op op, unsigned block, unsigned count, unsigned flags)
{
	return rig_op(f->stack.rig.loops[0], f->stack.store, op, (uint64_t)block * BLOCK,
	    (uint64_t)count * BLOCK, flags);
}

/* What is known of the blocks is so. */
static void check_bytes(struct failing *f)
{
	uint8_t want[BLOCK];

	for (unsigned b = 0; b < STEPS * 4; b++) {
		memset(want, f->bytes[b], BLOCK);
		if (f->bytes_known[b])
			rig_expect(f->stack.rig.loops[0], f->stack.store, (uint64_t)b * BLOCK,
			    BLOCK, want);
	}
}

static bool fail_syscall(void *ctx, unsigned n)
{
	struct failing *f = ctx;
	unsigned what = f->lack, before;
	bool failed, unstable;

	memset(f, 0, sizeof(*f));
	f->lack = what;
	f->stack.factory = &plain;
	memset(f->bytes_known, true, sizeof(f->bytes_known));
	rig_start(&f->stack.rig, 1, 2);
	lacking_create(&f->stack, what);
	calls = 0;
	fail_call = n;
	expect(f, step_write(f, 0, 4, 1, 0), 0, 4, 1);
	expect(f, step_write(f, 4, 4, 2, STORE_FUA), 4, 4, 2);
	expect(f, step_write(f, 8, 4, 3, 0), 8, 4, 3);
	expect(f, step(f, STORE_ZERO, 1, 2, 0), 1, 2, 0);
	expect(f, step(f, STORE_ZERO, 5, 2, STORE_KEEP), 5, 2, 0);
	before = f->errors;
	expect(f, step(f, STORE_ZERO, 9, 2, STORE_FUA), 9, 2, 0);
	unstable = f->errors > before;
	expect(f, step(f, STORE_ALLOC, 12, 4, 0), 0, 0, 0);
	expect(f, step(f, STORE_ALLOC, 16, 4, STORE_KEEP), 0, 0, 0);
	expect(f, step_write(f, 24, 4, 4, 0), 24, 4, 4);
	expect(f, step(f, STORE_RESIZE, 26, 0, 0), 26, 22, 0);
	expect(f, step(f, STORE_FLUSH, 0, 0, 0), 0, 0, 0);
	failed = calls >= n;
	fail_call = 0;
	/* Each failure is told, and only once; but after a sync that failed FLUSH fails as well. */
	ck_assert_msg(f->errors == (unsigned)failed || (unstable && f->errors == 2), "%u errors in run %u",
	    f->errors, n);
	check_bytes(f);
	lacking_destroy(&f->stack);
	rig_stop(&f->stack.rig);
	return failed;
}

START_TEST(each_call_fails_in_turn)
{
	static const unsigned lacks[] = {
	    0, LACK_PUNCH, LACK_PUNCH | LACK_ZERO_RANGE, LACK_ZERO_RANGE};
	static struct failing f;

	fail_errno = ENOSPC;
	f.lack = lacks[_i];
	ck_assert_uint_ge(rig_fail_each(fail_syscall, &f, 100), STEPS - 1);
}
END_TEST

/* Writeback that has failed is told once by the kernel; the store does not forget it. */
START_TEST(a_failed_sync_is_remembered)
{
	static struct failing f;

	for (int fua = 0; fua < 3; fua++) {
		rig_start(&f.stack.rig, 1, 2);
		lacking_create(&f.stack, fua == 2 ? LACK_DSYNC : 0);
		ck_assert_int_eq(step_write(&f, 0, 1, 1, 0), 0);
		ck_assert_int_eq(step(&f, STORE_FLUSH, 0, 0, 0), 0);
		fail_errno = EIO;
		calls = 0;
		fail_call = fua == 2 ? 2 : 1; /* a write and a sync of its own */
		if (fua)
			ck_assert_int_eq(step_write(&f, 1, 1, 2, STORE_FUA), -EIO);
		else
			ck_assert_int_eq(step(&f, STORE_FLUSH, 0, 0, 0), -EIO);
		fail_call = 0;
		ck_assert_int_eq(step_write(&f, 2, 1, 3, 0), 0);
		ck_assert_int_eq(step(&f, STORE_FLUSH, 0, 0, 0), -EIO);
		ck_assert_int_eq(step(&f, STORE_FLUSH, 0, 0, 0), -EIO);
		lacking_destroy(&f.stack);
		rig_stop(&f.stack.rig);
	}
}
END_TEST

/* FUA and FLUSH reach the disk, whatever the kernel lacks; nothing else pays for that. */
START_TEST(what_should_be_stable_is_synced)
{
	static struct failing f;

	for (unsigned what = 0; what < SHORT; what++) {
		rig_start(&f.stack.rig, 1, 2);
		lacking_create(&f.stack, what);
		stable = 0;
		ck_assert_int_eq(step_write(&f, 0, 4, 1, 0), 0);
		ck_assert_int_eq(step(&f, STORE_ZERO, 0, 1, 0), 0);
		ck_assert_uint_eq(stable, 0);
		ck_assert_int_eq(step_write(&f, 1, 1, 2, STORE_FUA), 0);
		ck_assert_uint_eq(stable, 1);
		ck_assert_int_eq(step(&f, STORE_ZERO, 2, 1, STORE_FUA), 0);
		ck_assert_uint_eq(stable, 2);
		ck_assert_int_eq(step(&f, STORE_ZERO, 3, 1, STORE_FUA | STORE_KEEP), 0);
		ck_assert_uint_eq(stable, 3);
		ck_assert_int_eq(step(&f, STORE_FLUSH, 0, 0, 0), 0);
		ck_assert_uint_eq(stable, 4);
		lacking_destroy(&f.stack);
		rig_stop(&f.stack.rig);
	}
}
END_TEST

int main(void)
{
	Suite *suite = contract_suite("file_syscalls", lacking);
	TCase *tc = tcase_create("failures");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_unchecked_fixture(tc, rig_tmpdirs_begin, rig_tmpdirs_end);
	tcase_add_loop_test(tc, each_call_fails_in_turn, 0, 4);
	tcase_add_test(tc, a_failed_sync_is_remembered);
	tcase_add_test(tc, what_should_be_stable_is_synced);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
