/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram top` knows of the mounts; see top.h.
 *
 * Daemons of other versions may leave out what is asked for here: it counts as 0 or "".
 */
#include "mount/top.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t get(const struct json *value, const char *path)
{
	double number = json_number(json_find(value, path), 0);

	return number > 0 ? (uint64_t)number : 0;
}

static bool is_true(const struct json *value, const char *path)
{
	return json_type(json_find(value, path)) == JSON_TRUE;
}

static void get_text(const struct json *value, const char *path, char *buf, size_t room)
{
	snprintf(buf, room, "%s", json_string(json_find(value, path), ""));
}

static void read_region(struct top_region *region, const struct json *doc)
{
	const struct json *cache = json_find(doc, "cache");

	get_text(doc, "name", region->name, sizeof(region->name));
	get_text(doc, "state", region->state, sizeof(region->state));
	get_text(doc, "lease", region->lease, sizeof(region->lease));
	region->id = json_u64(json_find(doc, "id"), 0);
	region->has_size = json_find(doc, "size") != NULL;
	region->size = get(doc, "size");
	region->opens = (unsigned)get(doc, "open");
	region->recovering = is_true(doc, "recovering");
	region->recording = is_true(doc, "recording");
	region->cached = json_type(cache) == JSON_OBJECT;
	region->resident = get(cache, "resident");
	region->dirty = get(cache, "dirty");
	region->pulling = get(cache, "pulling");
	region->pushing = get(cache, "pushing");
	region->oldest_dirty_ms = get(cache, "oldest_dirty_ms");
	region->fetched = get(cache, "fetched");
	region->pushed = get(cache, "pushed");
	region->push_failing = *json_string(json_find(cache, "error"), "") != '\0';
}

static int read_regions(struct top_mount *mount, const struct json *list)
{
	unsigned count = 0;

	for (const struct json *doc = json_first(list); doc; doc = json_next(doc))
		count++;
	mount->regions = calloc(count ? count : 1, sizeof(*mount->regions));
	if (!mount->regions)
		return -ENOMEM;
	for (const struct json *doc = json_first(list); doc; doc = json_next(doc))
		read_region(&mount->regions[mount->region_count++], doc);
	return 0;
}

static void read_connection(struct top_mount *mount, const struct json *doc)
{
	mount->connection = json_type(doc) == JSON_OBJECT;
	get_text(doc, "state", mount->connection_state, sizeof(mount->connection_state));
	mount->since_ms = json_number(json_find(doc, "since_ms"), 0);
	mount->rtt_us = json_number(json_find(doc, "rtt_us"), 0);
	mount->in_flight = (unsigned)get(doc, "in_flight");
	mount->bytes_in = get(doc, "bytes_in");
	mount->bytes_out = get(doc, "bytes_out");
}

static void read_cache(struct top_mount *mount, const struct json *doc)
{
	mount->managed = json_type(doc) == JSON_OBJECT;
	mount->cache_size = get(doc, "size");
	mount->cache_resident = get(doc, "resident");
	mount->max_dirty = get(doc, "max_dirty");
	mount->dirty = get(doc, "dirty");
	mount->oldest_dirty_ms = get(doc, "oldest_dirty_ms");
	mount->writers_waiting = (unsigned)get(doc, "writers_waiting");
}

int top_add(struct top_sample *sample, const struct status *status)
{
	struct top_mount *mounts, *mount;
	const struct json *doc = status->daemon;

	mounts = realloc(sample->mounts, (sample->mount_count + 1) * sizeof(*mounts));
	if (!mounts)
		return -ENOMEM;
	sample->mounts = mounts;
	mount = &mounts[sample->mount_count++];
	memset(mount, 0, sizeof(*mount));
	snprintf(mount->dir, sizeof(mount->dir), "%s", status->state.dir);
	snprintf(mount->source, sizeof(mount->source), "%s", status->state.source);
	snprintf(mount->trouble, sizeof(mount->trouble), "%s", status->trouble);
	mount->health = status->health;
	read_connection(mount, json_find(doc, "connection"));
	read_cache(mount, json_find(doc, "cache"));
	mount->read_bytes = get(doc, "requests.read.bytes");
	mount->write_bytes = get(doc, "requests.write.bytes");
	mount->reads = get(doc, "requests.read.count");
	mount->writes = get(doc, "requests.write.count");
	return read_regions(mount, json_find(doc, "regions"));
}

/* One cell, [RESIDENT, DIRTY, BUSY]. */
static void read_cell(struct map_cell *cell, const struct json *doc)
{
	const struct json *part = json_first(doc);
	double resident = json_number(part, 0), dirty;

	part = json_next(part);
	dirty = json_number(part, 0);
	cell->resident = resident > 0 && resident <= MAP_WHOLE ? (uint16_t)resident : 0;
	cell->dirty = dirty > 0 && dirty <= MAP_WHOLE ? (uint16_t)dirty : 0;
	cell->busy = json_number(json_next(part), 0) > 0;
}

int top_set_map(struct top_region *region, const char *answer)
{
	const struct json *list;
	struct map_cell *cells;
	unsigned count = 0;
	struct json *doc;
	int res = json_parse(answer, strlen(answer), &doc, NULL);

	if (res)
		return res;
	list = json_find(doc, "cells");
	for (const struct json *cell = json_first(list); cell; cell = json_next(cell))
		count++;
	cells = count && count <= MAP_CELLS_MAX ? calloc(count, sizeof(*cells)) : NULL;
	if (!cells) {
		json_destroy(doc);
		return count && count <= MAP_CELLS_MAX ? -ENOMEM : -EINVAL;
	}
	free(region->cells);
	region->cells = cells;
	region->cell_count = count;
	for (const struct json *cell = json_first(list); cell; cell = json_next(cell))
		read_cell(cells++, cell);
	json_destroy(doc);
	return 0;
}

/* A counter that went backwards is that of a new daemon. */
static double rate(uint64_t now, uint64_t before, double seconds)
{
	return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static void region_rates(struct top_mount *mount, const struct top_mount *before, double seconds)
{
	for (unsigned i = 0; i < mount->region_count; i++) {
		struct top_region *region = &mount->regions[i];

		for (unsigned k = 0; region->cached && k < before->region_count; k++) {
			const struct top_region *old = &before->regions[k];

			if (!old->cached || old->id != region->id)
				continue;
			region->fetch_rate = rate(region->fetched, old->fetched, seconds);
			region->push_rate = rate(region->pushed, old->pushed, seconds);
		}
	}
}

static void mount_rates(struct top_mount *mount, const struct top_mount *before, double seconds)
{
	mount->in_rate = rate(mount->bytes_in, before->bytes_in, seconds);
	mount->out_rate = rate(mount->bytes_out, before->bytes_out, seconds);
	mount->read_rate = rate(mount->read_bytes, before->read_bytes, seconds);
	mount->write_rate = rate(mount->write_bytes, before->write_bytes, seconds);
	mount->reads_rate = rate(mount->reads, before->reads, seconds);
	mount->writes_rate = rate(mount->writes, before->writes, seconds);
	region_rates(mount, before, seconds);
}

void top_rates(struct top_sample *sample, const struct top_sample *before)
{
	double seconds = (double)(sample->at_ms - before->at_ms) / 1000;

	for (unsigned i = 0; i < sample->mount_count; i++) {
		struct top_mount *mount = &sample->mounts[i];

		for (unsigned k = 0; k < before->mount_count; k++) {
			const struct top_mount *old = &before->mounts[k];

			if (old->health == STATUS_LIVE && !strcmp(old->dir, mount->dir))
				mount_rates(mount, old, seconds);
		}
	}
}

void top_fini(struct top_sample *sample)
{
	for (unsigned i = 0; i < sample->mount_count; i++) {
		struct top_mount *mount = &sample->mounts[i];

		for (unsigned k = 0; k < mount->region_count; k++)
			free(mount->regions[k].cells);
		free(mount->regions);
	}
	free(sample->mounts);
	memset(sample, 0, sizeof(*sample));
}
