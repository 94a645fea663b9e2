/* SPDX-License-Identifier: Apache-2.0
 *
 * Control requests of the managed pool.  Most pass to the lower pool (struct meta: a copy of the request, so that
 * the lower pool gets handles of its own), and what comes back is corrected by what is known here.
 *
 * A change of size goes through the region's cache if it has one, which waits for what is in flight and asks the
 * lower pool itself (meta_remote_resize).  Who asked for it can be interrupted at any time, but the change can't once
 * the lower pool has it: nobody would know how long the region is.  It goes on without whoever asked (orig is NULL
 * then).  Removed and renamed regions are found by the names that were last seen;
 * whether one has really lost its name the lower pool is asked (doubt).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/managed_int.h"

struct meta {
	struct pool_req sub;
	struct pool_req *orig; /* NULL: it was interrupted, and is answered */
	struct managed *managed;
	struct managed_entry *entry; /* held, while it is set */
	struct managed_remote *remote; /* whose handle sub has, or NULL */
	struct managed_remote *creating; /* its CREATE is at the lower pool; or NULL */
	struct managed_want want;
	bool opening; /* want is waiting */
	bool lower; /* sub is at the lower pool */
	struct cache_handle *ch; /* for a RESIZE, owned */
	struct store_req resize;
};

int64_t meta_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---- what is known here ---- */

static void correct(struct managed *managed, struct region_attr *attr)
{
	struct managed_entry *entry = entry_find(managed, attr->id);

	if (!entry)
		return;
	if (entry->cache && entry->remote && !entry->lost) {
		if (!entry->remote->writes && attr->version > entry->version)
			entry_changed(entry, attr->version, attr->size);
		attr->size = cache_size(entry->cache);
		if (entry->wrote)
			attr->mtime_ns = entry->mtime_ns;
	} else if (entry->cache && entry->lost) {
		attr->size = cache_size(entry->cache);
	}
	if (attr->ctime_ns < attr->mtime_ns)
		attr->ctime_ns = attr->mtime_ns;
	attr->version = entry->gen;
}

static void correct_list(struct managed *managed, struct pool_req *req)
{
	char *pos = req->data, *end = pos + req->ret_len;

	while (pos < end) {
		struct pool_dirent *dirent = (struct pool_dirent *)pos;

		correct(managed, &dirent->attr);
		pos += (sizeof(*dirent) + dirent->name_len + 7) & ~(size_t)7;
	}
}

/* ---- names ---- */

struct naming {
	const char *name;
	uint64_t id; /* whose it is; 0: nobody's that is known */
};

static void name_one(struct managed_entry *entry, void *ctx)
{
	const struct naming *naming = ctx;
	bool same = strcmp(entry->name, naming->name) == 0;

	if (entry->id == naming->id && !same) {
		strcpy(entry->name, naming->name);
		index_touch(entry);
	} else if (entry->id != naming->id && same) {
		entry->name[0] = '\0';
		entry->doubt = true;
		entry_advance(entry);
	}
}

/* Region id is called `name`, and no other is any more; those that were may be gone. */
static void named(struct managed *managed, const char *name, uint64_t id)
{
	struct naming naming = {name, id};

	managed_each(managed, name_one, &naming);
}

/* A region that is not kept was looked up; an open may follow. */
static void note_name(struct managed *managed, const char *name, uint64_t id)
{
	struct managed_name *note = &managed->names[managed->next_name];

	if (entry_find(managed, id))
		return;
	note->id = id;
	snprintf(note->name, sizeof(note->name), "%s", name);
	managed->next_name = (managed->next_name + 1) % MANAGED_NAMES;
}

const char *meta_noted_name(const struct managed *managed, uint64_t id)
{
	for (unsigned i = 1; i <= MANAGED_NAMES; i++) {
		unsigned at = (managed->next_name + MANAGED_NAMES - i) % MANAGED_NAMES;

		if (managed->names[at].id == id)
			return managed->names[at].name;
	}
	return "";
}

/* The name is nobody's now, or another's. */
static void forget_name(struct managed *managed, const char *name)
{
	for (unsigned i = 0; i < MANAGED_NAMES; i++) {
		if (strcmp(managed->names[i].name, name) == 0)
			managed->names[i].id = 0;
	}
}

static uint64_t id_of_name(const struct managed *managed, const char *name)
{
	for (unsigned i = 0; i < MANAGED_BUCKETS; i++)
		for (struct managed_entry *entry = managed->buckets[i]; entry; entry = entry->next)
			if (strcmp(entry->name, name) == 0)
				return entry->id;
	return 0;
}

static void renamed(struct managed *managed, const struct pool_req *req)
{
	uint64_t from = id_of_name(managed, req->name), to = id_of_name(managed, req->new_name);

	if (req->flags & POOL_EXCHANGE) {
		struct managed_entry *a = entry_find(managed, from), *b = entry_find(managed, to);

		if (a)
			strcpy(a->name, req->new_name);
		if (b)
			strcpy(b->name, req->name);
		if (a)
			index_touch(a);
		if (b)
			index_touch(b);
		return;
	}
	if (from != to)
		named(managed, req->new_name, from);
}

/* ---- passing on ---- */

static struct meta *meta_create(struct managed *managed, struct pool_req *req)
{
	struct meta *meta = calloc(1, sizeof(*meta));

	if (!meta) {
		pool_complete(req, -ENOMEM);
		return NULL;
	}
	meta->managed = managed;
	meta->orig = req;
	meta->sub = *req;
	meta->sub.session = managed->conf.session;
	meta->sub.who = NULL;
	meta->sub.handle = NULL;
	req->owner = meta;
	managed->lower++;
	return meta;
}

static void meta_end(struct meta *meta, int err)
{
	struct managed *managed = meta->managed;
	struct pool_req *req = meta->orig;

	remote_put(meta->remote);
	free(meta);
	managed->lower--;
	if (req) {
		req->owner = NULL;
		pool_complete(req, err);
	}
	managed_check_left(managed);
}

static void take_results(struct meta *meta)
{
	struct pool_req *req = meta->orig;

	req->attr = meta->sub.attr;
	req->ret_earlier = meta->sub.ret_earlier;
	req->ret_len = meta->sub.ret_len;
	req->ret_cookie = meta->sub.ret_cookie;
	req->statfs = meta->sub.statfs;
}

static void learn(struct meta *meta)
{
	struct managed *managed = meta->managed;
	struct pool_req *req = meta->orig;

	switch (req->op) {
	case POOL_LOOKUP:
		named(managed, req->name, req->attr.id);
		note_name(managed, req->name, req->attr.id);
		correct(managed, &req->attr);
		break;
	case POOL_GETATTR:
	case POOL_SETATTR:
	case POOL_CREATE:
		correct(managed, &req->attr);
		break;
	case POOL_LIST:
		correct_list(managed, req);
		break;
	case POOL_REMOVE:
		named(managed, req->name, 0);
		forget_name(managed, req->name);
		break;
	case POOL_RENAME:
		forget_name(managed, req->name);
		forget_name(managed, req->new_name);
		renamed(managed, req);
		break;
	default:
		break;
	}
}

static void passed(struct pool_req *sub, int err)
{
	struct meta *meta = (struct meta *)sub;
	struct pool_req *req = meta->orig;
	struct managed_entry *entry = meta->entry;

	if (req)
		memcpy(req->ret_holder, sub->ret_holder, sizeof(req->ret_holder));
	if (!err && req) {
		take_results(meta);
		learn(meta);
		if (req->op == POOL_LISTXATTR)
			err = xattr_list(meta->managed, req, req->ret_len);
	}
	meta_end(meta, err);
	if (entry)
		entry_put(entry, 0);
}

static void pass(struct meta *meta)
{
	meta->lower = true;
	meta->sub.done = passed;
	pool_submit(meta->managed->conf.lower, &meta->sub);
}

/* The lower pool's handle of a region that is open here goes with the request: the region may have no
 * name. */
static void use_handle(struct meta *meta)
{
	struct managed_entry *entry = entry_find(meta->managed, meta->sub.id);

	if (!entry || !entry->remote)
		return;
	meta->remote = remote_get(entry->remote);
	meta->sub.handle = meta->remote->handle;
}

/* ---- sizes ---- */

static struct managed_entry *entry_of_resize(struct pool_req *req)
{
	return (struct managed_entry *)((char *)req - offsetof(struct managed_entry, resize_req));
}

static void resize_agreed(struct managed_entry *entry)
{
	entry->shrinks = false;
	entry->resize_call->done(entry->resize_call, 0);
}

static void resize_commit(struct managed_entry *entry);

static void resize_expired(struct loop_timer *timer)
{
	resize_commit(
	    (struct managed_entry *)((char *)timer - offsetof(struct managed_entry, resize_retry)));
}

static void resize_committed(struct managed_commit *commit, int err)
{
	struct managed_entry *entry =
	    (struct managed_entry *)((char *)commit -
				     offsetof(struct managed_entry, resize_commit));

	if (!err || entry->managed->leaving) {
		resize_agreed(entry);
		return;
	}
	entry->resize_retry.expired = resize_expired;
	loop_timer_set(entry->managed->conf.loop, &entry->resize_retry,
	    loop_now_ns() + MANAGED_RETRY_MS * UINT64_C(1000000));
}

/* The index must know of a region that became shorter before its end is cut here: otherwise a crash finds
 * dirty blocks there with other bytes, and takes them for newer ones.  As long as it can't be committed nobody gets at
 * that end, and it is tried again. */
static void resize_commit(struct managed_entry *entry)
{
	entry->resize_commit.done = resize_committed;
	index_now(entry, &entry->resize_commit);
}

void meta_leave(struct managed_entry *entry)
{
	if (!entry->resize_retry.loop)
		return;
	loop_timer_cancel(&entry->resize_retry);
	resize_agreed(entry);
}

static void resize_replied(struct pool_req *req, int err)
{
	struct managed_entry *entry = entry_of_resize(req);

	if (err || req->attr.size >= cache_size(entry->cache)) {
		entry->resize_call->done(entry->resize_call, err);
		return;
	}
	entry->shrinks = true;
	entry->new_size = req->attr.size;
	resize_commit(entry);
}

void meta_remote_resize(void *ctx, uint64_t size, struct cache_call *call)
{
	struct managed_entry *entry = ctx;

	entry->resize_call = call;
	entry->resize_req = (struct pool_req){
	    .op = POOL_SETATTR,
	    .session = entry->managed->conf.session,
	    .id = entry->id,
	    .set = POOL_SET_SIZE,
	    .attr.size = size,
	    .handle = entry->remote->handle,
	    .done = resize_replied,
	};
	pool_submit(entry->managed->conf.lower, &entry->resize_req);
}

/* The size is set: the rest of the SETATTR, or just what the attributes are now. */
static void resized(struct store_req *sreq, int err)
{
	struct meta *meta = (struct meta *)((char *)sreq - offsetof(struct meta, resize));
	struct managed_entry *entry = meta->entry;
	unsigned flags = meta->want.flags;

	if (meta->ch)
		store_destroy(&meta->ch->handle.store);
	meta->ch = NULL;
	if (err) {
		meta_end(meta, err);
		entry_put(entry, flags);
		return;
	}
	entry->mtime_ns = meta_now_ns();
	entry->wrote = true;
	meta->sub.set &= ~(unsigned)POOL_SET_SIZE;
	if (!meta->sub.set && !meta->orig) {
		meta_end(meta, 0);
		entry_put(entry, flags);
		return;
	}
	if (!meta->sub.set)
		meta->sub.op = POOL_GETATTR;
	use_handle(meta);
	entry_get(entry, 0); /* passed() gives that back */
	pass(meta);
	entry_put(entry, flags);
}

static void resize_at(struct meta *meta, struct store *store)
{
	meta->resize = (struct store_req){
	    .op = STORE_RESIZE,
	    .off = meta->sub.attr.size,
	    .done = resized,
	};
	store_submit(store, &meta->resize);
}

static void resize_opened(struct managed_want *want, int err)
{
	struct meta *meta = (struct meta *)((char *)want - offsetof(struct meta, want));
	struct managed_entry *entry = meta->entry;
	unsigned flags = want->flags;

	meta->opening = false;
	if (err) {
		memcpy(meta->orig->ret_holder, entry->holder, sizeof(meta->orig->ret_holder));
		meta_end(meta, err);
		return;
	}
	err = cache_handle_create(entry->cache, POOL_READ | POOL_WRITE, &meta->ch, NULL);
	if (err) {
		meta_end(meta, err);
		entry_put(entry, flags);
		return;
	}
	resize_at(meta, &meta->ch->handle.store);
}

/* Through a region without a cache: it may have got one meanwhile. */
static void size_passed(struct pool_req *sub, int err)
{
	struct meta *meta = (struct meta *)sub;
	struct managed_entry *entry = entry_find(meta->managed, sub->id);

	if (!err && entry && entry->cache && !entry->lost)
		entry_changed(entry, sub->attr.version, sub->attr.size);
	passed(sub, err);
}

static void set_size(struct meta *meta)
{
	struct pool_req *req = meta->orig;
	struct managed_entry *entry = entry_find(meta->managed, req->id);
	struct managed_handle *mh = (struct managed_handle *)req->handle;

	if (req->attr.size > meta->managed->pool.size_max) {
		meta_end(meta, -EFBIG);
		return;
	}
	if (!entry && !mh) {
		meta->lower = true;
		meta->sub.done = size_passed;
		pool_submit(meta->managed->conf.lower, &meta->sub);
		return;
	}
	if (mh && !(mh->handle.flags & POOL_WRITE)) {
		meta_end(meta, -EBADF);
		return;
	}
	meta->want.flags = POOL_READ | POOL_WRITE;
	if (mh) {
		meta->entry = mh->entry;
		entry_get(mh->entry, meta->want.flags);
		resize_opened(&meta->want, 0);
		return;
	}
	meta->entry = entry;
	meta->want.done = resize_opened;
	meta->opening = true;
	entry_want(entry, &meta->want);
}

static void set_attr(struct meta *meta)
{
	struct pool_req *req = meta->orig;
	struct managed_entry *entry = entry_find(meta->managed, req->id);

	if (req->set & POOL_SET_SIZE) {
		set_size(meta);
		return;
	}
	if (req->set & POOL_SET_MTIME && entry && entry->wrote)
		entry->mtime_ns = req->attr.mtime_ns;
	use_handle(meta);
	pass(meta);
}

/* ---- opening ---- */

static void open_done(struct managed_want *want, int err)
{
	struct meta *meta = (struct meta *)((char *)want - offsetof(struct meta, want));
	struct managed_entry *entry = meta->entry;
	struct pool_req *req = meta->orig;
	bool created = req->op == POOL_CREATE;
	unsigned flags = want->flags;

	meta->opening = false;
	if (err) {
		memcpy(req->ret_holder, entry->holder, sizeof(req->ret_holder));
		meta_end(meta, err);
		return;
	}
	err = handle_create(entry, req, &req->ret_handle);
	if (err) {
		meta_end(meta, err);
		entry_put(entry, flags);
		return;
	}
	req->ret_unchanged =
	    !created && req->version && req->version == entry->gen && !record_on(entry);
	req->attr = entry->attr;
	correct(meta->managed, &req->attr);
	meta_end(meta, 0);
}

static void open_entry(struct meta *meta, struct managed_entry *entry)
{
	meta->entry = entry;
	meta->opening = true;
	meta->want.flags = meta->orig->flags & (POOL_READ | POOL_WRITE);
	meta->want.done = open_done;
}

static void open_region(struct managed *managed, struct pool_req *req)
{
	struct managed_entry *entry = entry_find(managed, req->id);
	struct meta *meta;

	if (req->flags & (POOL_SHARED | POOL_PIN)) {
		pool_complete(req, -EOPNOTSUPP);
		return;
	}
	if (managed->leaving) {
		pool_complete(req, -ESHUTDOWN);
		return;
	}
	meta = meta_create(managed, req);
	if (!meta)
		return;
	if (!entry)
		entry = entry_create(managed, req->id, "");
	if (!entry) {
		meta_end(meta, -ENOMEM);
		return;
	}
	open_entry(meta, entry);
	entry_want(entry, &meta->want);
}

static void created(struct pool_req *sub, int err)
{
	struct managed_remote *remote = (struct managed_remote *)sub;
	struct meta *meta = sub->data; /* CREATE has no use for it */
	struct managed *managed = meta->managed;
	struct managed_entry *entry;

	meta->creating = NULL;
	if (err) {
		memcpy(meta->orig->ret_holder, sub->ret_holder, sizeof(sub->ret_holder));
		remote->handle = NULL;
		remote_close(remote);
		meta_end(meta, err);
		return;
	}
	remote->handle = sub->ret_handle;
	entry = entry_find(managed, sub->attr.id);
	if (entry) { /* it was there */
		remote_close(remote);
		open_entry(meta, entry);
		entry_want(entry, &meta->want);
		return;
	}
	entry = entry_create(managed, sub->attr.id, meta->orig->name);
	if (!entry) {
		remote_close(remote);
		meta_end(meta, -ENOMEM);
		return;
	}
	named(managed, meta->orig->name, entry->id);
	open_entry(meta, entry);
	entry_get(entry, meta->want.flags);
	entry->wants = &meta->want;
	entry->wants_tail = &meta->want.next;
	entry_created(entry, remote);
}

static void create(struct managed *managed, struct pool_req *req)
{
	struct meta *meta;
	struct managed_remote *remote;

	if (req->flags & (POOL_SHARED | POOL_PIN)) {
		pool_complete(req, -EOPNOTSUPP);
		return;
	}
	meta = meta_create(managed, req);
	if (!meta)
		return;
	if (req->flags & POOL_NO_OPEN) {
		pass(meta);
		return;
	}
	remote = remote_create(managed, req->flags, 0);
	if (!remote) {
		meta_end(meta, -ENFILE);
		return;
	}
	remote->req.op = POOL_CREATE;
	remote->req.flags = req->flags | POOL_READ;
	remote->req.attr = req->attr;
	remote->req.name = req->name;
	remote->req.data = meta;
	remote->req.done = created;
	meta->creating = remote;
	pool_submit(managed->conf.lower, &remote->req);
}

/* ---- all ---- */

void meta_submit(struct managed *managed, struct pool_req *req)
{
	struct meta *meta;

	req->owner = NULL;
	switch (req->op) {
	case POOL_OPEN:
		open_region(managed, req);
		return;
	case POOL_CREATE:
		create(managed, req);
		return;
	case POOL_CLOSE:
		handle_close(req->handle);
		pool_complete(req, 0);
		return;
	case POOL_GETXATTR:
	case POOL_SETXATTR:
	case POOL_REMOVEXATTR:
		if (xattr_submit(managed, req))
			return;
		break;
	default:
		break;
	}
	meta = meta_create(managed, req);
	if (!meta)
		return;
	if (req->op == POOL_SETATTR) {
		set_attr(meta);
		return;
	}
	if (req->op == POOL_GETATTR)
		use_handle(meta);
	pass(meta);
}

/* Whoever asked for a change of size is answered; the change ends if nobody was asked for it yet. */
static void interrupt_resize(struct meta *meta)
{
	struct pool_req *req = meta->orig;

	meta->orig = NULL;
	req->owner = NULL;
	store_interrupt(&meta->resize); /* meta may be gone */
	pool_complete(req, -EINTR);
}

void meta_interrupt(struct managed *managed, struct pool_req *req)
{
	struct meta *meta = req->owner;

	if (!meta || xattr_interrupt(req))
		return;
	if (meta->opening)
		entry_unwant(meta->entry, &meta->want);
	else if (meta->creating)
		pool_interrupt(managed->conf.lower, &meta->creating->req);
	else if (meta->lower)
		pool_interrupt(managed->conf.lower, &meta->sub);
	else if (meta->resize.store)
		interrupt_resize(meta);
}
