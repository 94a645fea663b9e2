/* SPDX-License-Identifier: Apache-2.0
 *
 * The nodes that the kernel knows: one for each region that it has looked up and not forgotten.
 *
 * Invariant: a node lives while lookups > 0; the kernel forgets no node that is open.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fs_int.h"

static struct fs_node **bucket(const struct fs *fs, uint64_t id)
{
	return (struct fs_node **)(uintptr_t)&fs->nodes[id % FS_NODE_BUCKETS];
}

struct fs_node *fs_node_find(const struct fs *fs, uint64_t id)
{
	struct fs_node *node = *bucket(fs, id);

	while (node && node->id != id)
		node = node->next;
	return node;
}

static const char *name_of(const struct fs_node *node)
{
	return node->name ? node->name : "";
}

static void set_name(struct fs_node *node, const char *name)
{
	free(node->name);
	node->name = *name ? strdup(name) : NULL;
}

static void destroy(struct fs_node *node)
{
	free(node->name);
	free(node);
}

struct fs_node *fs_node_lookup(struct fs *fs, const struct region_attr *attr, const char *name)
{
	struct fs_node *node = fs_node_find(fs, attr->id);

	if (!node) {
		node = calloc(1, sizeof(*node));
		if (!node)
			return NULL;
		node->id = attr->id;
		node->next = *bucket(fs, attr->id);
		*bucket(fs, attr->id) = node;
		fs->node_count++;
	}
	node->lookups++;
	node->size = attr->size;
	if (strcmp(name_of(node), name))
		set_name(node, name);
	return node;
}

void fs_node_renamed(struct fs *fs, const char *from, const char *to, bool exchange)
{
	for (unsigned i = 0; i < FS_NODE_BUCKETS; i++) {
		for (struct fs_node *node = fs->nodes[i]; node; node = node->next) {
			if (strcmp(name_of(node), from) == 0)
				set_name(node, to ? to : "");
			else if (to && strcmp(name_of(node), to) == 0)
				set_name(node, exchange ? from : "");
		}
	}
}

void fs_node_forget(struct fs *fs, uint64_t id, uint64_t lookups)
{
	struct fs_node **link = bucket(fs, id), *node;

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	node = *link;
	if (!node)
		return;
	node->lookups -= lookups < node->lookups ? lookups : node->lookups;
	if (node->lookups)
		return;
	*link = node->next;
	fs->node_count--;
	fs_stale_forget(fs, node);
	destroy(node);
}

void fs_node_drop_all(struct fs *fs)
{
	for (unsigned i = 0; i < FS_NODE_BUCKETS; i++) {
		while (fs->nodes[i]) {
			struct fs_node *next = fs->nodes[i]->next;

			destroy(fs->nodes[i]);
			fs->nodes[i] = next;
		}
	}
	fs->node_count = 0;
}

void fs_for_each_open(
    const struct fs *fs, void (*region)(void *ctx, const struct fs_open_region *open), void *ctx)
{
	for (unsigned i = 0; i < FS_NODE_BUCKETS; i++) {
		for (struct fs_node *node = fs->nodes[i]; node; node = node->next) {
			struct fs_open_region open = {
			    .name = name_of(node),
			    .size = node->size,
			    .opens = node->opens,
			    .writers = node->writers,
			    .lease_lost = node->lease_lost,
			};

			if (node->opens)
				region(ctx, &open);
		}
	}
}

int fs_pin(struct fs *fs, uint64_t id, bool on)
{
	struct fs_node *node = fs_node_find(fs, id);

	if (!node)
		return -ENOENT;
	node->pinned = on;
	return 0;
}

const char *fs_pinned(const struct fs *fs)
{
	for (unsigned i = 0; i < FS_NODE_BUCKETS; i++)
		for (const struct fs_node *node = fs->nodes[i]; node; node = node->next)
			if (node->pinned)
				return name_of(node);
	return NULL;
}
