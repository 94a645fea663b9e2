/* SPDX-License-Identifier: Apache-2.0
 *
 * The named regions of a pool, in the order of their ids and by name.
 *
 * Invariant: by_id[0 … count) is sorted and holds exactly the regions that stand in by_name.
 * Locking: the caller's (a pool's mu).
 */
#include "core/region_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/region.h"

static unsigned name_bucket(const char *name)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	return h % REGION_TABLE_BUCKETS;
}

struct region *region_table_find_name(struct region_table *table, const char *name)
{
	struct region *region = table->by_name[name_bucket(name)];

	while (region && strcmp(region->name, name) != 0)
		region = region->name_next;
	return region;
}

/* The index of the first region with an id of at least `id`. */
size_t region_table_index(const struct region_table *table, uint64_t id)
{
	size_t lo = 0, hi = table->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (table->by_id[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct region *region_table_find_id(struct region_table *table, uint64_t id)
{
	size_t i = region_table_index(table, id);

	return i < table->count && table->by_id[i]->id == id ? table->by_id[i] : NULL;
}

static void name_link(struct region_table *table, struct region *region)
{
	struct region **head = &table->by_name[name_bucket(region->name)];

	region->name_next = *head;
	*head = region;
}

static void name_unlink(struct region_table *table, struct region *region)
{
	struct region **link = &table->by_name[name_bucket(region->name)];

	while (*link != region)
		link = &(*link)->name_next;
	*link = region->name_next;
}

/* Makes room for one more; 0 or -ENOMEM. */
int region_table_reserve(struct region_table *table)
{
	struct region **grown;
	size_t room = table->room ? table->room * 2 : 64;

	if (table->count < table->room)
		return 0;
	grown = realloc(table->by_id, room * sizeof(grown[0]));
	if (!grown)
		return -ENOMEM;
	table->by_id = grown;
	table->room = room;
	return 0;
}

void region_table_insert(struct region_table *table, struct region *region)
{
	size_t i = region_table_index(table, region->id);

	memmove(
	    table->by_id + i + 1, table->by_id + i, (table->count - i) * sizeof(table->by_id[0]));
	table->by_id[i] = region;
	table->count++;
	name_link(table, region);
}

void region_table_remove(struct region_table *table, struct region *region)
{
	size_t i = region_table_index(table, region->id);

	table->count--;
	memmove(
	    table->by_id + i, table->by_id + i + 1, (table->count - i) * sizeof(table->by_id[0]));
	name_unlink(table, region);
	free(region->name);
	region->name = NULL;
}

void region_table_rename(struct region_table *table, struct region *region, char *name)
{
	name_unlink(table, region);
	free(region->name);
	region->name = name;
	name_link(table, region);
}
