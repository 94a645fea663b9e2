/* SPDX-License-Identifier: Apache-2.0
 *
 * The catalogue against a model: every operation, every refusal, kill -9 at random moments, every I/O
 * failing in turn, a full disk, and that each change is synced before the call returns.
 *
 * A shim below SQLite (the default VFS of this program) counts and fails writes, syncs and
 * truncations, and knows which files have unsynced bytes.
 */
#include "core/catalogue.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/rig.h"
#include "tests/unit/catalogue_model.h"
#include "tests/unit/sqlite_shim.h"

static char dir[] = "/tmp/remram-catalogue-XXXXXX";
static char state[64]; /* dir/state */
static struct err err;
static uint8_t uuid[16];

#define OK(call) ck_assert_msg(!(call), "%s", err.text)

/* ---- helpers ------------------------------------------------------------------------------------- */

static void setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(state, sizeof(state), "%s/state", dir);
	install_shim();
}

static void teardown(void)
{
	rig_tmpdir_remove(dir);
}

static struct catalogue *open_pool(const char *pool)
{
	struct catalogue *cat = NULL;

	OK(catalogue_open(state, pool, &cat, uuid, &err));
	return cat;
}

static void open_fails(const char *where, int code, const char *why)
{
	struct catalogue *cat = NULL;

	err = (struct err){0};
	ck_assert_msg(
	    catalogue_open(where, "p", &cat, uuid, &err) == code, "%d: %s", err.code, err.text);
	ck_assert_ptr_null(cat);
	ck_assert_int_eq(err.code, code);
	ck_assert_msg(strstr(err.text, why), "\"%s\" lacks \"%s\"", err.text, why);
}

static uint64_t put(struct catalogue *cat, const char *name)
{
	struct region_attr attr = {.mode = 0600};

	OK(catalogue_next_id(cat, &attr.id, &err));
	OK(catalogue_put(cat, name, &attr, &(struct catalogue_writer){0}, &err));
	return attr.id;
}

/* Runs SQL on the database, which nobody has open, by another connection. */
static void meddle(const char *sql)
{
	char path[100];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/p.db", state);
	ck_assert_int_eq(
	    sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, real_vfs->zName),
	    SQLITE_OK);
	ck_assert_msg(
	    sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* ---- tests --------------------------------------------------------------------------------------- */

START_TEST(creation)
{
	struct catalogue *cat = open_pool("p");
	uint8_t first[16], zeros[16] = {0};
	struct stat st;
	char path[100];

	memcpy(first, uuid, 16);
	ck_assert_int_ne(memcmp(first, zeros, 16), 0);
	ck_assert_int_eq(stat(state, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "%s/p.db", state);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	snprintf(path, sizeof(path), "%s/p.db-wal", state);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	catalogue_close(cat);
	/* The same pool keeps its uuid, another one has its own. */
	catalogue_close(open_pool("p"));
	ck_assert_int_eq(memcmp(uuid, first, 16), 0);
	catalogue_close(open_pool("q"));
	ck_assert_int_ne(memcmp(uuid, first, 16), 0);
	catalogue_close(NULL);
}
END_TEST

START_TEST(creation_cut_off)
{
	char path[100];

	/* An empty file is what a creation leaves that is killed at once. */
	mkdir(state, 0700);
	snprintf(path, sizeof(path), "%s/p.db", state);
	close(open(path, O_CREAT | O_RDWR, 0600));
	catalogue_close(open_pool("p"));
	catalogue_close(open_pool("p"));
}
END_TEST

START_TEST(ids_are_never_used_again)
{
	struct catalogue *cat = open_pool("p");
	uint64_t last = 1, id;

	for (unsigned i = 0; i < 200; i++) {
		OK(catalogue_next_id(cat, &id, &err));
		ck_assert_uint_eq(id, last + 1);
		last = id;
	}
	for (unsigned round = 0; round < 5; round++) {
		catalogue_close(cat);
		cat = open_pool("p");
		id = put(cat, "x");
		ck_assert_uint_gt(id, last);
		last = id;
		OK(catalogue_remove(cat, id, &err));
	}
	catalogue_close(cat);
}
END_TEST

START_TEST(refusals)
{
	struct catalogue *cat = open_pool("p");
	struct model model = {0};
	struct region_attr attr = {.id = 900, .mode = 0600};
	struct catalogue_writer writer = {0};
	char long_name[300];
	uint64_t a = put(cat, "a"), b = put(cat, "b");

	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ck_assert_int_eq(catalogue_put(cat, "a", &attr, &writer, &err), -EEXIST);
	ck_assert_msg(strstr(err.text, "p.db has a region of that name already"), "%s", err.text);
	ck_assert_int_eq(catalogue_put(cat, long_name, &attr, &writer, &err), -EINVAL);
	ck_assert_int_eq(catalogue_remove(cat, 900, &err), -ENOENT);
	ck_assert_int_eq(catalogue_rename(cat, 900, "z", 0, NULL, &err), -ENOENT);
	ck_assert_int_eq(catalogue_rename(cat, a, "b", 0, NULL, &err), -EEXIST);
	ck_assert_int_eq(catalogue_rename(cat, a, "z", 900, NULL, &err), -ENOENT);
	ck_assert_int_eq(catalogue_rename(cat, a, "z", 900, "y", &err), -ENOENT);
	/* The last step fails: the first ones are undone. */
	ck_assert_int_eq(catalogue_rename(cat, 900, "b", b, NULL, &err), -ENOENT);
	ck_assert_int_eq(catalogue_rename(cat, 900, "b", b, "c", &err), -ENOENT);
	put(cat, "c");
	ck_assert_int_eq(catalogue_rename(cat, a, "z", b, "c", &err), -EEXIST);
	ck_assert_int_eq(catalogue_put_xattr(cat, 900, "user.one", "v", 1, &err), -ENOENT);
	ck_assert_int_eq(catalogue_put_xattr(cat, a, "user.one", NULL, 0, &err), -ENODATA);
	model.regions[0] = (struct model_region){.id = a, .name = "a", .attr = {.mode = 0600}};
	model.regions[1] = (struct model_region){.id = b, .name = "b", .attr = {.mode = 0600}};
	model.regions[2] = (struct model_region){.id = b + 1, .name = "c", .attr = {.mode = 0600}};
	ck_assert(same(cat, &model));
	OK(catalogue_remove(cat, b, &err));
	ck_assert(!same(cat, &model));
	catalogue_close(cat);
}
END_TEST

START_TEST(model_check)
{
	static struct model model;
	struct catalogue *cat = open_pool("p");

	srandom(1);
	for (unsigned i = 0; i < 1500; i++) {
		struct op op;
		random_op(&model, &op);
		if (op.kind == CREATE) {
			OK(catalogue_next_id(cat, &op.id, &err));
			op.attr.id = op.id;
		}
		OK(catalogue_apply(cat, &op, &err));
		ck_assert_msg(!wal_dirty, "kind %d is not synced", op.kind);
		model_apply(&model, &op);
		if (i % 100 == 0) {
			ck_assert(same(cat, &model));
			catalogue_close(cat);
			cat = open_pool("p");
		}
		ck_assert_msg(i % 10 || same(cat, &model), "after %u", i);
	}
	catalogue_close(cat);
}
END_TEST

/* A child works, writing down what it does in shared memory before and after; the parent kills it. */
struct journal {
	_Atomic unsigned begun, done;
	struct op ops[3000];
};

static void work_until_killed(struct journal *journal, struct model *model)
{
	struct catalogue *cat = NULL;

	if (catalogue_open(state, "p", &cat, uuid, &err))
		_exit(1);
	for (unsigned i = 0; i < sizeof(journal->ops) / sizeof(journal->ops[0]); i++) {
		struct op *op = &journal->ops[i];
		random_op(model, op);
		if (op->kind == CREATE) {
			if (catalogue_next_id(cat, &op->id, &err))
				_exit(2);
			op->attr.id = op->id;
		}
		journal->begun = i + 1;
		if (catalogue_apply(cat, op, &err))
			_exit(3);
		journal->done = i + 1;
		model_apply(model, op);
	}
	pause();
}

/* Counts in cut_off[0] what was under way and is not there, in cut_off[1] what is. */
static void crash_round(struct journal *journal, struct model *model, unsigned cut_off[2])
{
	unsigned begun, done;
	struct catalogue *cat;
	int status;
	pid_t child;

	journal->begun = journal->done = 0;
	child = fork();
	if (!child) {
		work_until_killed(journal, model);
		_exit(4);
	}
	usleep((useconds_t)(random() % 40000));
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFSIGNALED(status), "the child ended with %d", WEXITSTATUS(status));
	begun = journal->begun;
	done = journal->done;
	for (unsigned i = 0; i < done; i++) {
		if (journal->ops[i].kind == CREATE) {
			ck_assert_uint_gt(journal->ops[i].id, model->last_id);
			model->last_id = journal->ops[i].id;
		}
		model_apply(model, &journal->ops[i]);
	}
	cat = open_pool("p");
	cut_off[1] += begun > done;
	if (!same(cat, model)) {
		/* Then the operation that was cut off must be there, whole. */
		ck_assert_uint_eq(begun, done + 1);
		model_apply(model, &journal->ops[done]);
		ck_assert(same(cat, model));
	} else if (begun > done) {
		cut_off[0]++;
		cut_off[1]--;
	}
	if (begun > done && journal->ops[done].kind == CREATE)
		model->last_id = journal->ops[done].id;
	catalogue_close(cat);
}

START_TEST(kill_at_random_moments)
{
	static struct model model;
	struct journal *journal =
	    mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned seed = (unsigned)time(NULL), cut_off[2] = {0}, total = 0;

	ck_assert_ptr_ne(journal, MAP_FAILED);
	printf("kill_at_random_moments: seed %u\n", seed);
	srandom(seed);
	for (unsigned round = 0; round < 40; round++) {
		crash_round(journal, &model, cut_off);
		total += journal->done;
		srandom(seed + round);
	}
	printf("kill_at_random_moments: %u operations; cut off: %u undone, %u done\n", total,
	    cut_off[0], cut_off[1]);
	ck_assert_uint_gt(total, 0);
}
END_TEST

/* Opens, works, closes, while the io_fail_at-th I/O fails: whatever succeeds goes into the model. */
static void faulty_run(struct model *model)
{
	struct catalogue *cat = NULL;

	io_count = 0;
	err = (struct err){0};
	if (catalogue_open(state, "p", &cat, uuid, &err)) {
		ck_assert_int_ne(err.code, 0);
		ck_assert_ptr_null(cat);
		return;
	}
	for (unsigned i = 0; i < 12; i++) {
		struct op op;
		int r = 0;
		random_op(model, &op);
		if (op.kind == CREATE) {
			r = catalogue_next_id(cat, &op.id, &err);
			op.attr.id = op.id;
		}
		if (!r)
			r = catalogue_apply(cat, &op, &err);
		if (!r)
			model_apply(model, &op);
		else
			ck_assert_msg(
			    err.code == r && (r == -EIO || r == -ENOSPC), "%d %s", r, err.text);
		ck_assert(same(cat, model));
	}
	catalogue_close(cat);
}

START_TEST(each_io_fails)
{
	static const int codes[] = {SQLITE_IOERR_WRITE, SQLITE_FULL, SQLITE_IOERR_FSYNC};

	for (unsigned c = 0; c < sizeof(codes) / sizeof(codes[0]); c++) {
		unsigned n;
		io_fail_code = codes[c];
		for (n = 1;; n++) {
			struct model model = {0};
			struct catalogue *cat;
			unsigned count;
			teardown();
			ck_assert_int_eq(mkdir(dir, 0700), 0);
			srandom(n);
			io_fail_at = n;
			faulty_run(&model);
			count = io_count;
			io_fail_at = 0;
			cat = open_pool("p");
			ck_assert_msg(same(cat, &model), "I/O %u failed with %d", n, codes[c]);
			catalogue_close(cat);
			if (count < n)
				break;
		}
		ck_assert_uint_gt(n, 30);
	}
}
END_TEST

START_TEST(locked_by_another_process)
{
	int to_child[2], to_parent[2], status;
	char byte = 0;
	pid_t child;

	ck_assert_int_eq(pipe(to_child) | pipe(to_parent), 0);
	child = fork();
	if (!child) {
		struct catalogue *cat;
		if (catalogue_open(state, "p", &cat, uuid, &err))
			_exit(1);
		(void)!write(to_parent[1], "x", 1);
		(void)!read(to_child[0], &byte, 1);
		_exit(0); /* without closing */
	}
	ck_assert_int_eq(read(to_parent[0], &byte, 1), 1);
	open_fails(state, -EBUSY, "p.db is in use by another process");
	(void)!write(to_child[1], "x", 1);
	waitpid(child, &status, 0);
	ck_assert_int_eq(status, 0);
	catalogue_close(open_pool("p"));
}
END_TEST

START_TEST(open_twice_in_one_process)
{
	struct catalogue *cat = open_pool("p");

	open_fails(state, -EBUSY, "in use");
	/* The failed attempt has not dropped our lock. */
	open_fails(state, -EBUSY, "in use");
	put(cat, "still works");
	if (!fork()) {
		struct catalogue *other;
		_exit(catalogue_open(state, "p", &other, uuid, &err) == -EBUSY ? 0 : 1);
	} else {
		int status;
		wait(&status);
		ck_assert_int_eq(status, 0);
	}
	catalogue_close(cat);
}
END_TEST

static void damage(off_t off, size_t len, int byte)
{
	char path[100], bytes[8192];
	int fd;

	snprintf(path, sizeof(path), "%s/p.db", state);
	memset(bytes, byte, sizeof(bytes));
	fd = open(path, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, len, off), (ssize_t)len);
	close(fd);
}

START_TEST(damaged_files)
{
	struct catalogue *cat = open_pool("p");
	char name[20];

	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "region %u", i);
		put(cat, name);
	}
	catalogue_close(cat);
	catalogue_close(open_pool("p"));
	/* A page of an index or a table: only quick_check sees it. */
	damage(5 * 4096, 4096, 0xa5);
	open_fails(state, -EUCLEAN, "p.db is damaged (");
	ck_assert_ptr_nonnull(strstr(err.text, ".recover"));
	damage(0, 100, 0);
	open_fails(state, -EUCLEAN, "p.db is damaged (file is not a database)");
}
END_TEST

START_TEST(foreign_files)
{
	char path[100];

	catalogue_close(open_pool("p"));
	meddle("PRAGMA user_version = 3");
	open_fails(
	    state, -EUCLEAN, "is from a newer version of remram (schema 3, this one knows 2)");
	ck_assert_ptr_nonnull(strstr(err.text, "p.db"));
	meddle("PRAGMA user_version = 1; PRAGMA application_id = 7");
	open_fails(state, -EUCLEAN, "p.db is not a catalogue of remram");
	meddle("PRAGMA user_version = 0; PRAGMA application_id = 0");
	open_fails(state, -EUCLEAN, "p.db is not a catalogue of remram");
	snprintf(path, sizeof(path), "%s/p.db", state);
	unlink(path);
	meddle("CREATE TABLE customers (name TEXT)");
	open_fails(state, -EUCLEAN, "p.db is not a catalogue of remram");
}
END_TEST

START_TEST(meddled_contents)
{
	struct catalogue *cat = open_pool("p");
	struct model model = {0};

	put(cat, "a");
	catalogue_close(cat);
	meddle("UPDATE region SET name = x'610062'");
	cat = open_pool("p");
	ck_assert_int_eq(catalogue_load(cat, compare_region, compare_xattr,
			     &(struct comparison){.model = &model}, &err),
	    -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(err.text, "a name is empty, too long or contains a NUL"));
	catalogue_close(cat);
	meddle("DELETE FROM pool");
	open_fails(state, -EUCLEAN, "it has no pool");
	meddle("DROP TABLE xattr");
	open_fails(state, -EUCLEAN, "no such table: xattr");
}
END_TEST

START_TEST(bad_directories)
{
	char path[5000], *p = path;

	open_fails("/proc/nonexistent/state", -ENOENT, "cannot create the state directory /proc/");
	close(open(state, O_CREAT | O_RDWR, 0600));
	open_fails(state, -ENOTDIR, "/state/p.db: Not a directory");
	for (unsigned i = 0; i < 2400; i++)
		p += sprintf(p, "/.");
	open_fails(path, -ENAMETOOLONG, "cannot open the catalogue of pool \"p\"");
}
END_TEST

/* Not as root, whom permissions do not bind. */
static void read_only_permissions(const char *path)
{
	if (!geteuid()) {
		ck_assert_int_eq(
		    chown(state, 65534, 65534) | chown(path, 65534, 65534) | chmod(dir, 0755), 0);
		ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	}
	ck_assert_int_eq(chmod(state, 0500), 0);
	open_fails(state, -EROFS, "p.db: it or its directory is read-only");
	ck_assert_int_eq(chmod(state, 0700), 0);
	ck_assert_int_eq(chmod(path, 0400), 0);
	open_fails(state, -EROFS, "p.db: it or its directory is read-only");
	ck_assert_int_eq(chmod(path, 0), 0);
	open_fails(state, -EACCES, "cannot open ");
}

START_TEST(read_only_directory)
{
	char path[100];
	int status;
	pid_t child;

	catalogue_close(open_pool("p"));
	snprintf(path, sizeof(path), "%s/p.db", state);
	child = fork();
	if (!child) {
		read_only_permissions(path);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	/* A mount that is read-only binds root too. */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		printf("read_only_directory: skipped the mount: %s\n", strerror(errno));
		return;
	}
	ck_assert_int_eq(mount(state, state, NULL, MS_BIND, NULL), 0);
	ck_assert_int_eq(mount(NULL, state, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
	open_fails(state, -EROFS, "p.db: it or its directory is read-only");
	umount(state);
}
END_TEST

/* A file system of 400 KiB fills up; what was stored stays, and space makes it work again. */
START_TEST(full_disk)
{
	static struct model model;
	struct catalogue *cat;
	struct op op = {.kind = XATTR_SET, .len = VALUE_MAX};
	char junk[100];
	int r, fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", dir, "tmpfs", 0, "size=400k")) {
		printf("full_disk: skipped: %s\n", strerror(errno));
		return;
	}
	snprintf(junk, sizeof(junk), "%s/junk", dir);
	fd = open(junk, O_CREAT | O_RDWR, 0600);
	ck_assert_int_eq(posix_fallocate(fd, 0, 64 << 10), 0);
	cat = open_pool("p");
	op.id = put(cat, "region");
	model.regions[0] = (struct model_region){.id = op.id, .name = "region", .attr.mode = 0600};
	do {
		op.seed++;
		r = catalogue_apply(cat, &op, &err);
		if (!r)
			model_apply(&model, &op);
		ck_assert_uint_lt(op.seed, 100);
	} while (!r);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_msg(strstr(err.text, "p.db: the disk is full"), "%s", err.text);
	ck_assert(same(cat, &model));
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	op.len = 100;
	OK(catalogue_apply(cat, &op, &err));
	model_apply(&model, &op);
	catalogue_close(cat);
	cat = open_pool("p");
	ck_assert(same(cat, &model));
	catalogue_close(cat);
	close(fd);
	umount(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("catalogue");
	TCase *tc = tcase_create("catalogue");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, creation);
	tcase_add_test(tc, creation_cut_off);
	tcase_add_test(tc, ids_are_never_used_again);
	tcase_add_test(tc, refusals);
	tcase_add_test(tc, model_check);
	tcase_add_test(tc, kill_at_random_moments);
	tcase_add_test(tc, each_io_fails);
	tcase_add_test(tc, locked_by_another_process);
	tcase_add_test(tc, open_twice_in_one_process);
	tcase_add_test(tc, damaged_files);
	tcase_add_test(tc, foreign_files);
	tcase_add_test(tc, meddled_contents);
	tcase_add_test(tc, bad_directories);
	tcase_add_test(tc, read_only_directory);
	tcase_add_test(tc, full_disk);
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
