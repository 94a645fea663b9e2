/* SPDX-License-Identifier: Apache-2.0
 *
 * Recordings: what is read of a region, in the order in which it is first read, in units of 64 KiB.
 *
 * A bitmap says which units are recorded already; units that follow each other, in time and place, are one
 * range.  When the ranges are full the rest is not recorded, and the recording says so.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/managed_int.h"

enum { UNIT_SHIFT = 16 };

struct managed_record {
	bool on, cut;
	unsigned count;
	uint64_t units; /* bits in seen */
	uint64_t *seen;
	struct pull_range ranges[MANAGED_RECORD_MAX];
};

bool record_on(const struct managed_entry *entry)
{
	return entry->record && entry->record->on;
}

void record_free(struct managed_entry *entry)
{
	if (!entry->record)
		return;
	free(entry->record->seen);
	free(entry->record);
	entry->record = NULL;
}

static void add(struct managed_record *record, uint64_t unit)
{
	struct pull_range *last = record->count ? &record->ranges[record->count - 1] : NULL;

	if (last && last->off + last->len == unit << UNIT_SHIFT) {
		last->len += 1 << UNIT_SHIFT;
		return;
	}
	if (record->count == MANAGED_RECORD_MAX) {
		record->cut = true;
		return;
	}
	record->ranges[record->count++] =
	    (struct pull_range){unit << UNIT_SHIFT, 1 << UNIT_SHIFT, 0};
}

void record_note(struct managed_entry *entry, uint64_t off, uint64_t len)
{
	struct managed_record *record = entry->record;

	if (!record_on(entry))
		return;
	for (uint64_t unit = off >> UNIT_SHIFT; unit <= (off + len - 1) >> UNIT_SHIFT; unit++) {
		uint64_t bit = (uint64_t)1 << unit % 64;

		if (unit >= record->units) { /* the region has grown since */
			record->cut = true;
			return;
		}
		if (record->seen[unit / 64] & bit)
			continue;
		record->seen[unit / 64] |= bit;
		add(record, unit);
	}
}

int managed_record(struct pool *pool, uint64_t id, bool on)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);
	struct managed_record *record;

	if (!entry || !entry->cache)
		return -ENOENT;
	if (!on) {
		if (entry->record)
			entry->record->on = false;
		return 0;
	}
	record = calloc(1, sizeof(*record));
	if (!record)
		return -ENOMEM;
	record->units = (cache_size(entry->cache) >> UNIT_SHIFT) + 1;
	record->seen = calloc(record->units / 64 + 1, sizeof(record->seen[0]));
	if (!record->seen) {
		free(record);
		return -ENOMEM;
	}
	record->on = true;
	record_free(entry);
	entry->record = record;
	return 0;
}

int managed_recorded(
    struct pool *pool, uint64_t id, struct pull_range *ranges, unsigned max, bool *ret_cut)
{
	struct managed_entry *entry = entry_find(managed_of(pool), id);
	const struct managed_record *record = entry ? entry->record : NULL;
	unsigned n = 0;

	if (!record)
		return -ENOENT;
	for (; n < record->count && n < max; n++) {
		ranges[n] = record->ranges[n];
		ranges[n].prio =
		    (int)n < 2 * PULL_PRIO_MAX ? PULL_PRIO_MAX - (int)n : -PULL_PRIO_MAX;
	}
	*ret_cut = record->cut || n < record->count;
	return (int)n;
}
