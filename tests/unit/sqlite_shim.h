/* SPDX-License-Identifier: Apache-2.0
 *
 * A VFS below SQLite, for tests: counts writes, syncs and truncations, fails the one that the test
 * chooses, and knows whether the write-ahead log has bytes that were not synced.
 *
 * Included by one test program; install_shim makes it that program's default VFS.
 */
#ifndef REMRAM_TESTS_SQLITE_SHIM_H
#define REMRAM_TESTS_SQLITE_SHIM_H

#include <sqlite3.h>
#include <stdbool.h>

struct shim_file {
	sqlite3_file base;
	sqlite3_file *real;
	bool is_wal;
};

static sqlite3_vfs *real_vfs;
static unsigned io_count; /* writes, syncs, truncations so far */
static unsigned io_fail_at; /* that one fails; 0: none */
static int io_fail_code;
static bool wal_dirty;

static sqlite3_file *real_file(sqlite3_file *file)
{
	return ((struct shim_file *)file)->real;
}

static bool io_fails(void)
{
	return ++io_count == io_fail_at;
}

static int shim_close(sqlite3_file *file)
{
	return real_file(file)->pMethods->xClose(real_file(file));
}

static int shim_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 off)
{
	return real_file(file)->pMethods->xRead(real_file(file), buf, len, off);
}

static int shim_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 off)
{
	if (io_fails())
		return io_fail_code;
	if (((struct shim_file *)file)->is_wal)
		wal_dirty = true;
	return real_file(file)->pMethods->xWrite(real_file(file), buf, len, off);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	if (io_fails())
		return io_fail_code;
	return real_file(file)->pMethods->xTruncate(real_file(file), size);
}

static int shim_sync(sqlite3_file *file, int flags)
{
	if (io_fails())
		return io_fail_code;
	if (((struct shim_file *)file)->is_wal)
		wal_dirty = false;
	return real_file(file)->pMethods->xSync(real_file(file), flags);
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
	return real_file(file)->pMethods->xFileSize(real_file(file), ret_size);
}

static int shim_lock(sqlite3_file *file, int lock)
{
	return real_file(file)->pMethods->xLock(real_file(file), lock);
}

static int shim_unlock(sqlite3_file *file, int lock)
{
	return real_file(file)->pMethods->xUnlock(real_file(file), lock);
}

static int shim_reserved(sqlite3_file *file, int *ret_reserved)
{
	return real_file(file)->pMethods->xCheckReservedLock(real_file(file), ret_reserved);
}

static int shim_control(sqlite3_file *file, int op, void *arg)
{
	return real_file(file)->pMethods->xFileControl(real_file(file), op, arg);
}

static int shim_sector(sqlite3_file *file)
{
	return real_file(file)->pMethods->xSectorSize(real_file(file));
}

static int shim_device(sqlite3_file *file)
{
	return real_file(file)->pMethods->xDeviceCharacteristics(real_file(file));
}

/* Version 1: without shared memory, which the catalogue must not need. */
static const sqlite3_io_methods shim_methods = {
    .iVersion = 1,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_reserved,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector,
    .xDeviceCharacteristics = shim_device,
};

static int shim_open(
    sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct shim_file *shim = (struct shim_file *)file;
	int rc;

	shim->real = (sqlite3_file *)(shim + 1);
	shim->is_wal = flags & SQLITE_OPEN_WAL;
	shim->base.pMethods = NULL;
	rc = real_vfs->xOpen(real_vfs, name, shim->real, flags, ret_flags);
	if (shim->real->pMethods)
		shim->base.pMethods = &shim_methods;
	return rc;
}

static sqlite3_vfs shim_vfs;

static void install_shim(void)
{
	real_vfs = sqlite3_vfs_find(NULL);
	shim_vfs = *real_vfs;
	shim_vfs.zName = "shim";
	shim_vfs.pNext = NULL;
	shim_vfs.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
	shim_vfs.xOpen = shim_open;
	sqlite3_vfs_register(&shim_vfs, 1);
}

#endif
