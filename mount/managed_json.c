/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed regions as JSON; see managed_json.h.
 */
#include "mount/managed_json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/managed.h"
#include "mount/map.h"

#define MS 1000000

static const char *bool_text(bool yes)
{
	return yes ? "true" : "false";
}

/* A member whose value is an error's description, or "". */
static void put_error(struct text *text, const char *name, int code)
{
	text_put(text, "\"%s\":", name);
	text_put_string(text, code ? strerror(code < 0 ? -code : code) : "");
	text_put(text, ",");
}

static void put_number(struct text *text, const char *name, uint64_t value)
{
	text_put(text, "\"%s\":%" PRIu64 ",", name, value);
}

void managed_json_cache(struct text *text, const struct pool *pool)
{
	struct managed_status status;
	const struct cache_group_status *group = &status.group;

	managed_status(pool, &status);
	text_put(text, "{\"dir\":");
	if (status.dir)
		text_put_string(text, status.dir);
	else
		text_put(text, "null");
	text_put(text, ",");
	put_number(text, "size", group->size);
	put_number(text, "resident", group->resident);
	put_number(text, "max_dirty", group->max_dirty);
	put_number(text, "dirty", status.dirty);
	put_number(text, "oldest_dirty_ms", status.oldest_dirty_ns / MS);
	put_number(text, "pull_rate", group->pull_rate);
	put_number(text, "push_rate", group->push_rate);
	text_put(text, "\"pull_rtt_us\":%.1f,\"push_rtt_us\":%.1f,",
	    (double)group->pull_rtt_ns / 1e3, (double)group->push_rtt_ns / 1e3);
	put_number(text, "pull_window", group->pull_window);
	put_number(text, "push_window", group->push_window);
	put_number(text, "writers_waiting", group->writers_waiting);
	put_number(text, "regions", status.regions);
	put_number(text, "recovering", status.recovering);
	put_number(text, "lost", status.lost);
	text_put(text, "\"leaving\":%s}", bool_text(status.leaving));
}

static void put_cache(struct text *text, const struct managed_region *region)
{
	static const char *const modes[] = {
	    [PULL_NONE] = "none", [PULL_SEQUENTIAL] = "sequential", [PULL_ALL] = "all"};
	const struct cache_status *cache = &region->cache;

	text_put(text, "{");
	put_number(text, "resident", cache->resident);
	put_number(text, "local", cache->local);
	put_number(text, "dirty", cache->dirty);
	put_number(text, "oldest_dirty_ms", cache->oldest_dirty_ns / MS);
	put_number(text, "pulling", cache->pulling);
	put_number(text, "pushing", cache->pushing);
	put_number(text, "fetched", cache->fetched);
	put_number(text, "pushed", cache->pushed);
	put_number(text, "evicted", cache->evicted);
	put_number(text, "hits", cache->hits);
	put_number(text, "misses", cache->misses);
	put_number(text, "push_errors", cache->push_errors);
	put_error(text, "error", cache->error);
	put_error(text, "frozen", cache->frozen);
	text_put(text, "\"attached\":%s,\"pull\":\"%s\",\"pull_active\":%s,",
	    bool_text(cache->attached), modes[region->puller.mode],
	    bool_text(region->puller.active));
	put_number(text, "jobs", region->puller.jobs);
	put_number(text, "pull_errors", region->puller.errors);
	put_number(text, "retry_ms", region->pusher.retry_ns / MS);
	text_put(text, "\"holding\":%s}", bool_text(region->pusher.holding));
}

static const char *lease_of(const struct managed_region *region)
{
	return region->state == MANAGED_LOST ? "lost" : region->lease ? "held" : "none";
}

struct regions {
	struct text *text;
	size_t keep;
	bool any;
};

static void put_region(void *ctx, const struct managed_region *region)
{
	static const char *const states[] = {
	    [MANAGED_COLD] = "cold",
	    [MANAGED_OPENING] = "opening",
	    [MANAGED_OPEN] = "open",
	    [MANAGED_IDLE] = "idle",
	    [MANAGED_LOST] = "lost",
	    [MANAGED_ENDING] = "ending",
	};
	static const char *const durabilities[] = {
	    [CACHE_REMOTE] = "remote", [CACHE_LOCAL] = "local", [CACHE_NONE] = "none"};
	struct regions *regions = ctx;
	struct text *text = regions->text;

	/* Nothing is going on with these, and there may be thousands. */
	if (region->state == MANAGED_COLD && !region->recovering)
		return;
	/* A byte of the name takes six at most. */
	if (!text_has_room(text, regions->keep + MANAGED_JSON_REGION + 6 * strlen(region->name)))
		return;
	text_put(text, "%s{\"name\":", regions->any ? "," : "");
	regions->any = true;
	text_put_string(text, region->name);
	text_put(text, ",");
	text_put(text, "\"id\":\"%" PRIu64 "\",", region->id);
	if (region->cached)
		put_number(text, "size", region->cache.size);
	put_number(text, "open", region->opens);
	put_number(text, "writers", region->writers);
	text_put(text, "\"state\":\"%s\",\"lease\":\"%s\",\"durability\":\"%s\",",
	    states[region->state], lease_of(region), durabilities[region->durability]);
	text_put(text, "\"recovering\":%s,\"recording\":%s,", bool_text(region->recovering),
	    bool_text(region->recording));
	put_error(text, "index_error", region->index_error);
	text_put(text, "\"cache\":");
	if (region->cached)
		put_cache(text, region);
	else
		text_put(text, "null");
	text_put(text, "}");
}

void managed_json_regions(struct text *text, const struct pool *pool, size_t keep)
{
	struct regions regions = {.text = text, .keep = keep};

	text_put(text, "[");
	managed_for_each(pool, put_region, &regions);
	text_put(text, "]");
}

int managed_json_map(struct text *text, const struct pool *pool, uint64_t id,
    struct cache_cell *cells, unsigned count, struct err *err)
{
	if (managed_map(pool, id, cells, count))
		return err_set(err, -ENOENT, "region %" PRIu64 " has no cache", id);
	/* A region of fewer blocks than cells: those without one show the block that follows them. */
	for (unsigned i = count - 1; i > 0; i--) {
		if (cells[i - 1].blocks == 0)
			cells[i - 1] = cells[i];
	}
	text_put(text, "{\"id\":\"%" PRIu64 "\",\"cells\":[", id);
	for (unsigned i = 0; i < count; i++) {
		const struct cache_cell *cell = &cells[i];

		text_put(text, "%s[%u,%u,%d]", i ? "," : "",
		    map_share(cell->resident, cell->blocks), map_share(cell->dirty, cell->blocks),
		    cell->busy);
	}
	text_put(text, "]}");
	return 0;
}

int managed_json_runs(struct text *text, const struct pool *pool, uint64_t id, uint64_t off,
    uint64_t len, struct cache_run runs[MANAGED_JSON_RUNS], struct err *err)
{
	int count = managed_runs(pool, id, off, len, runs, MANAGED_JSON_RUNS);

	if (count < 0)
		return err_set(err, count, "region %" PRIu64 " has no cache", id);
	text_put(text, "{\"id\":\"%" PRIu64 "\",\"runs\":[", id);
	for (int i = 0; i < count; i++)
		text_put(text, "%s[%" PRIu64 ",%d,%d]", i ? "," : "", runs[i].len, runs[i].resident,
		    runs[i].dirty);
	text_put(text, "]}");
	return 0;
}
