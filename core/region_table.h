/* SPDX-License-Identifier: Apache-2.0
 *
 * The named regions of a pool, in the order of their ids and by name.  The caller locks.
 */
#ifndef REMRAM_CORE_REGION_TABLE_H
#define REMRAM_CORE_REGION_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct region;

enum { REGION_TABLE_BUCKETS = 4096 };

struct region_table {
	struct region **by_id; /* sorted */
	size_t count, room;
	struct region *by_name[REGION_TABLE_BUCKETS]; /* chained by name_next */
};

struct region *region_table_find_name(struct region_table *table, const char *name);
struct region *region_table_find_id(struct region_table *table, uint64_t id);
/* The index in by_id of the first region with an id of at least `id`; count if there is none. */
size_t region_table_index(const struct region_table *table, uint64_t id);

/* Makes room for one more: 0 or -ENOMEM.  The next insert then can't fail. */
int region_table_reserve(struct region_table *table);
void region_table_insert(struct region_table *table, struct region *region);
/* Takes the region out and frees its name: it is nameless (name NULL) from then on. */
void region_table_remove(struct region_table *table, struct region *region);
/* Takes name (malloc'ed). */
void region_table_rename(struct region_table *table, struct region *region, char *name);

#endif
