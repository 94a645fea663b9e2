/* SPDX-License-Identifier: Apache-2.0
 *
 * How a pool that this process holds begins and ends: opening its backend, finding what was there,
 * closing all of it.  See local_pool.c.
 */
#include "core/local_pool_int.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/log.h"

/* A write's time is taken when it begins, the file's when it is carried out: what is no later than this
 * has been told to the catalogue. */
static const int64_t WRITE_NS = 2000000000;
/* More often no version moves while the daemon runs. */
static const uint64_t VERSIONS_PER_RUN = (uint64_t)1 << 32;

struct load {
	struct local_pool *lp;
	struct err *err;
	int rc;
};

/* Gives a loaded region its version and writer.  changed: the bytes are others than the catalogue knows. */
static void load_versions(struct region *region, const struct region_attr *saved,
    const struct catalogue_writer *writer, bool changed)
{
	uint64_t now = (uint64_t)region_now_ns(), fresh = saved->version + VERSIONS_PER_RUN;

	region->told = *writer;
	atomic_store(&region->writer, changed && !writer->writing ? 0 : writer->writer);
	atomic_store(&region->base, writer->base);
	/* The last life may have told its version to others, who have copies: the next write moves it. */
	atomic_store(&region->seen, true);
	if (!changed && !writer->writing)
		return;
	/* One that nobody was told before: not by this life of the daemon, nor by the last one, which may have
	 * moved it after the catalogue was told. */
	region->fresh = true;
	atomic_store(&region->version, fresh > now ? fresh : now);
	if (atomic_load(&region->writer) == 0)
		atomic_store(&region->base, atomic_load(&region->version));
}

static void load_region(void *ctx, const char *name, const struct region_attr *saved,
    const struct catalogue_writer *writer)
{
	struct load *load = ctx;
	struct local_pool *lp = load->lp;
	struct region_attr attr = *saved;
	struct store_stat stat = {0};
	struct store *store;
	struct region *region;
	bool changed;

	if (load->rc)
		return;
	load->rc = lp->backend->ops->region_open(lp->backend, attr.id, false, &store, load->err);
	if (load->rc)
		return;
	/* The bytes know best how many they are, and if they changed after the catalogue was told. */
	store_stat(store, &stat);
	changed = attr.size != stat.size || stat.mtime_ns > attr.ctime_ns + WRITE_NS;
	attr.size = stat.size;
	if (stat.mtime_ns > attr.ctime_ns + WRITE_NS)
		attr.mtime_ns = stat.mtime_ns;
	load->rc = region_table_reserve(&lp->table);
	region = region_create(name, &attr, store);
	if (!region || load->rc) {
		region_destroy(region);
		load->rc = err_set(load->err, -ENOMEM, "out of memory for the regions");
		return;
	}
	local_adopt(lp, region);
	load_versions(region, saved, writer, changed);
	region_table_insert(&lp->table, region);
}

static void load_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	struct load *load = ctx;
	struct region *region = region_table_find_id(&load->lp->table, id);

	if (load->rc == 0 && region)
		region_xattr_set(region, name, value ? value : "", len, 0);
}

static void load_orphan(void *ctx, uint64_t id)
{
	struct load *load = ctx;
	struct local_pool *lp = load->lp;

	if (region_table_find_id(&lp->table, id))
		return;
	log_info("pool \"%s\": deleting the bytes of region %llu, which was removed before",
	    lp->pool.name, (unsigned long long)id);
	lp->backend->ops->region_remove(lp->backend, id, NULL);
}

/* The catalogue is told the versions that load_versions has made: if it were not, and this life of the daemon ended
 * as the last one did, the next one might make them again, for other bytes.  Where that fails the pool is used all
 * the same; the log says what is wrong. */
static void remember_versions(struct local_pool *lp)
{
	for (size_t i = 0; i < lp->table.count; i++) {
		struct region *region = lp->table.by_id[i];
		struct catalogue_writer writer;
		struct region_attr attr;

		if (!region->fresh)
			continue;
		region_get_attr(region, atomic_load(&region->writer), &attr);
		lease_writer_now(region, &writer);
		local_remember(lp, region, region->name, &attr, &writer);
	}
}

static int load(struct local_pool *lp, const struct local_pool_conf *conf, struct err *err)
{
	struct load load = {.lp = lp, .err = err};
	int rc = catalogue_open(conf->state_dir, conf->name, &lp->cat, lp->uuid, err);

	if (rc)
		return rc;
	if (lp->backend->ops->claim) {
		rc = lp->backend->ops->claim(lp->backend, lp->uuid, err);
		if (rc)
			return rc;
	}
	rc = catalogue_load(lp->cat, load_region, load_xattr, &load, err);
	if (rc == 0)
		rc = load.rc;
	if (rc == 0)
		remember_versions(lp);
	if (rc == 0)
		rc = lp->backend->ops->region_list(lp->backend, load_orphan, &load, err);
	return rc;
}

const char *local_pool_single_name(const char *uri, char *buf)
{
	const char *path = strchr(uri, ':') + 1, *host;
	size_t len, start;

	if (strncmp(path, "//", 2) == 0) { /* behind the host */
		host = path + 2;
		path = host + strcspn(host, "/?");
	}
	len = strcspn(path, "?");
	while (len && path[len - 1] == '/')
		len--;
	for (start = len; start && path[start - 1] != '/'; start--)
		;
	if (len - start == 0 || len - start > POOL_NAME_MAX ||
	    pool_check_name(path + start, len - start)) {
		path = uri;
		start = 0;
		len = strcspn(path, ":+");
	}
	memcpy(buf, path + start, len - start);
	buf[len - start] = 0;
	return buf;
}

/* The same URI is the same pool after a restart (FNV-1a). */
static void uuid_of_uri(const char *uri, uint8_t uuid[16])
{
	for (unsigned half = 0; half < 2; half++) {
		uint64_t hash = 14695981039346656037u + half;

		for (const char *c = uri; *c; c++)
			hash = (hash ^ (uint8_t)*c) * 1099511628211u;
		memcpy(uuid + 8 * half, &hash, 8);
	}
}

/* The one region of a pool that is a single file or piece of memory. */
static int load_single(struct local_pool *lp, const struct local_pool_conf *conf, struct err *err)
{
	struct region_attr attr = {
	    .id = 2, .mode = lp->backend->read_only ? 0400 : 0600, .nlink = 1};
	char name[POOL_NAME_MAX + 1];
	struct store_stat stat = {0};
	struct store *store;
	struct region *region;
	int rc = lp->backend->ops->region_open(
	    lp->backend, attr.id, !lp->backend->persistent, &store, err);

	if (rc)
		return rc;
	store_stat(store, &stat);
	attr.size = lp->backend->persistent ? stat.size : lp->backend->quota.limit;
	attr.atime_ns = attr.ctime_ns = region_now_ns();
	attr.mtime_ns = stat.mtime_ns ? stat.mtime_ns : attr.ctime_ns;
	attr.version = (uint64_t)attr.ctime_ns;
	uuid_of_uri(conf->uri, lp->uuid);
	region = region_create(local_pool_single_name(conf->uri, name), &attr, store);
	if (!region || region_table_reserve(&lp->table)) {
		region_destroy(region);
		return err_set(err, -ENOMEM, "out of memory for the region");
	}
	local_adopt(lp, region);
	region_table_insert(&lp->table, region);
	lp->pool.fixed = true;
	lp->pool.elsewhere = lp->backend->ops->link;
	return 0;
}

bool local_pool_link(const struct pool *pool, struct backend_link *ret_link)
{
	struct backend *backend = ((const struct local_pool *)pool)->backend;

	if (backend->ops->link)
		backend->ops->link(backend, ret_link);
	return backend->ops->link;
}

void local_pool_give_up(struct pool *pool)
{
	struct backend *backend = ((struct local_pool *)pool)->backend;

	if (backend->ops->give_up)
		backend->ops->give_up(backend);
}

static void local_destroy(struct pool *pool)
{
	struct local_pool *lp = (struct local_pool *)pool;

	pthread_mutex_lock(&lp->mu);
	while (lp->frees)
		pthread_cond_wait(&lp->freed, &lp->mu);
	pthread_mutex_unlock(&lp->mu);
	for (size_t i = 0; i < lp->table.count; i++) {
		struct region *region = lp->table.by_id[i];
		struct catalogue_writer writer;
		struct region_attr attr;

		assert(region->handles == 0 && region->refs == 0);
		region_get_attr(region, 1, &attr);
		lease_writer_now(region, &writer);
		local_remember(lp, NULL, region->name, &attr, &writer);
		region_destroy(region);
	}
	if (lp->backend && lp->backend->ops->sync)
		lp->backend->ops->sync(lp->backend);
	free(lp->table.by_id);
	catalogue_close(lp->cat);
	backend_close(lp->backend);
	pthread_mutex_destroy(&lp->ctl);
	pthread_mutex_destroy(&lp->mu);
	pthread_cond_destroy(&lp->freed);
	free(lp->stats);
	free(lp);
}

const struct pool_ops local_pool_ops = {
    .name = "local",
    .submit = local_pool_submit,
    .destroy = local_destroy,
};

int local_pool_create(const struct local_pool_conf *conf, struct workers *workers,
    struct pool **ret_pool, struct err *err)
{
	struct local_pool *lp = calloc(1, sizeof(*lp));
	struct timespec ts;
	int rc;

	if (lp)
		lp->stats = calloc(1, sizeof(*lp->stats));
	if (!lp || !lp->stats) {
		free(lp);
		return err_set(err, -ENOMEM, "out of memory for a pool");
	}
	lp->pool.ops = &local_pool_ops;
	lp->pool.name = conf->name;
	lp->pool.lease_ms = conf->lease_ms ? conf->lease_ms : LOCAL_POOL_LEASE_MS;
	lp->workers = workers;
	pthread_mutex_init(&lp->ctl, NULL);
	pthread_mutex_init(&lp->mu, NULL);
	pthread_cond_init(&lp->freed, NULL);
	rc = backend_open(conf->uri, conf->single, workers, &lp->backend, err);
	if (rc)
		goto fail;
	lp->pool.size_max =
	    lp->backend->quota.limit < INT64_MAX ? lp->backend->quota.limit : INT64_MAX;
	if (conf->timeo_ms && lp->backend->ops->patience)
		lp->backend->ops->patience(lp->backend, conf->timeo_ms);
	if (conf->single || lp->backend->ops->single) {
		rc = load_single(lp, conf, err);
	} else if (lp->backend->persistent) {
		rc = load(lp, conf, err);
	} else {
		/* Ids of an earlier life of this pool must not come again: clients may still hold them. */
		clock_gettime(CLOCK_REALTIME, &ts);
		lp->next_id = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
		rc = getrandom(lp->uuid, sizeof(lp->uuid), 0) == sizeof(lp->uuid) ? 0 : -EIO;
	}
	if (rc)
		goto fail;
	*ret_pool = &lp->pool;
	return 0;
fail:
	local_destroy(&lp->pool);
	return rc;
}
