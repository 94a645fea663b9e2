/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory of a cache that survives its process: -o cache=DIR.
 *
 *   DIR/remram-cache   the stamp: version, identity, whose pool's regions these are
 *   DIR/lock           locked by the mount that uses DIR; holds its pid and mount point
 *   DIR/index.db       core/cache_index.h's SQLite database (with index.db-wal)
 *   DIR/data/          one sparse file per region: a place of the `file:` backend, which core/ knows
 *                      by that name only (core/backend.h); region 0x2a is data/000000000000002a
 *   DIR/aside/         what could not be trusted or must not be pushed: core/rescue.h
 *
 * A directory belongs to one mount at a time and to one pool for ever; nothing here deletes or
 * overwrites what is another's.
 *
 * All functions block: set-up code and worker threads.  cache_dir_store, cache_dir_data_open and
 * cache_dir_data_remove may run in several threads at once, for different regions.
 */
#ifndef REMRAM_CORE_CACHE_DIR_H
#define REMRAM_CORE_CACHE_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/store.h"
#include "core/workers.h"

enum { CACHE_ID_LEN = 16, CACHE_DATA_NAME_MAX = 32 };

struct cache_dir;

/* Opens path (made with mode 0700 if it is absent; its parent must be there) and locks it until close,
 * for `mount`, the mount point that others are told of.  The caller's pid is noted as the holder: call
 * it in the process that stays.  Keeps workers for the stores.
 *   -EBUSY      another process has it: err names its pid and mount
 *   -ENOTEMPTY  it holds files but no stamp: it is not a cache
 *   -EUCLEAN    the stamp is damaged, or of a newer version
 *   -EEXIST     DIR/data is another cache's
 *   -EROFS, -EACCES, -ENOSPC, -EIO …  as the system says it */
int cache_dir_open(const char *path, const char *mount, struct workers *workers,
    struct cache_dir **ret_dir, struct err *err);
/* All stores are destroyed, the index is closed.  NULL does nothing. */
void cache_dir_close(struct cache_dir *dir);

/* Random, made with the directory: what its mounts call themselves at the donor. */
void cache_dir_identity(const struct cache_dir *dir, uint8_t ret_identity[CACHE_ID_LEN]);
/* Without links and dots. */
const char *cache_dir_path(const struct cache_dir *dir);
/* What it was claimed with last, or "". */
const char *cache_dir_source(const struct cache_dir *dir);

/* The regions here are those of the pool that calls itself `pool` (as the donor gives it: its instance
 * or uuid), reached as `source` (for messages; may change).  The first claim is noted and stable when
 * this returns; a later one of another pool fails with -EEXIST, err says whose it is, and nothing has
 * changed.  Call it before any store is opened. */
int cache_dir_claim(
    struct cache_dir *dir, const char *source, const uint8_t pool[CACHE_ID_LEN], struct err *err);

/* The data of region `id`, whose file exists (core/cache_index.h makes it, cache_index_load).  Several loops
 * may use the store; see the file backend. */
int cache_dir_store(struct cache_dir *dir, uint64_t id, struct store **ret_store, struct err *err);

/* The same file as a descriptor, for the index.  create: makes it if there is none, stable; otherwise
 * -ENOENT. */
int cache_dir_data_open(
    struct cache_dir *dir, uint64_t id, bool create, int *ret_fd, struct err *err);
/* Deletes it; its store is destroyed.  0 if there is none. */
int cache_dir_data_remove(struct cache_dir *dir, uint64_t id, struct err *err);
/* "000000000000002a": the file's name below data/. */
void cache_dir_data_name(uint64_t id, char ret_name[CACHE_DATA_NAME_MAX]);
/* Calls found for each region's file. */
int cache_dir_data_list(
    struct cache_dir *dir, void (*found)(void *ctx, uint64_t id), void *ctx, struct err *err);

/* Directories, open while dir is: DIR, DIR/data and DIR/aside. */
enum cache_dir_part { CACHE_DIR_TOP, CACHE_DIR_DATA, CACHE_DIR_ASIDE, CACHE_DIR_PARTS };
int cache_dir_fd(const struct cache_dir *dir, enum cache_dir_part part);

#endif
