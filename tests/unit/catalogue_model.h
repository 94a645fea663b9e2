/* SPDX-License-Identifier: Apache-2.0
 *
 * What a catalogue should hold, for tests: random operations, applied to a catalogue and to this
 * model, and the comparison of the two.
 */
#ifndef REMRAM_TESTS_CATALOGUE_MODEL_H
#define REMRAM_TESTS_CATALOGUE_MODEL_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalogue.h"

enum { REGIONS = 12, XATTRS = 2, VALUE_MAX = 65536 };

struct model_region {
	uint64_t id; /* 0: free */
	char name[256];
	struct region_attr attr;
	struct catalogue_writer writer;
	struct {
		bool set;
		size_t len;
		uint8_t seed;
	} xattrs[XATTRS];
};

struct model {
	struct model_region regions[REGIONS];
	uint64_t last_id; /* the highest id ever given */
};

enum kind { CREATE, CHANGE, REMOVE, RENAME, REPLACE, EXCHANGE, XATTR_SET, XATTR_DEL, KINDS };

struct op {
	enum kind kind;
	uint64_t id, other_id;
	char name[256], other_name[256];
	struct region_attr attr;
	struct catalogue_writer writer;
	unsigned xattr;
	size_t len;
	uint8_t seed;
};

static const char *const xattr_names[XATTRS] = {"user.one", "user.\xff\n two"};

static const uint8_t *value_of(size_t len, uint8_t seed)
{
	static uint8_t value[VALUE_MAX];

	for (size_t i = 0; i < len; i++)
		value[i] = (uint8_t)(seed + i * 7);
	return value;
}

static struct model_region *model_find(struct model *model, uint64_t id)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (model->regions[i].id == id)
			return &model->regions[i];
	return NULL;
}

static bool name_taken(const struct model *model, const char *name)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (model->regions[i].id && !strcmp(model->regions[i].name, name))
			return true;
	return false;
}

static void random_name(const struct model *model, char *name)
{
	do {
		size_t len = random() % 20 ? (size_t)(random() % 12 + 1) : 255;
		for (size_t i = 0; i < len; i++)
			do
				name[i] = (char)(random() % 255 + 1);
			while (name[i] == '/');
		name[len] = '\0';
	} while (name_taken(model, name));
}

static void random_attr(struct region_attr *attr)
{
	attr->size = (uint64_t)random() << (random() % 32);
	attr->version = (uint64_t)random();
	attr->atime_ns = random() * INT64_C(1000003) - 4000000000;
	attr->mtime_ns = -random();
	attr->ctime_ns = INT64_MAX - random();
	attr->mode = (uint32_t)random() & 07777;
	attr->uid = (uint32_t)random() * 2;
	attr->gid = UINT32_MAX;
}

static void random_writer(struct catalogue_writer *writer)
{
	writer->writer = (uint64_t)random() << 33 | (uint64_t)random();
	writer->base = (uint64_t)random();
	writer->writing = random() & 1;
}

static struct model_region *random_region(struct model *model)
{
	struct model_region *used[REGIONS];
	unsigned count = 0;

	for (unsigned i = 0; i < REGIONS; i++)
		if (model->regions[i].id)
			used[count++] = &model->regions[i];
	/* cppcheck-suppress uninitvar ; below count they are set */
	return count ? used[(unsigned)random() % count] : NULL;
}

/* A random operation that the model allows; the id of a CREATE is set when it is known. */
static void random_op(struct model *model, struct op *op)
{
	struct model_region *region = random_region(model), *other = random_region(model);

	memset(op, 0, sizeof(*op));
	op->kind = (enum kind)(random() % KINDS);
	if (!region || (random() % 4 == 0 && model_find(model, 0)))
		op->kind = CREATE;
	if (op->kind == CREATE && !model_find(model, 0))
		op->kind = REMOVE;
	if ((op->kind == REPLACE || op->kind == EXCHANGE) && region == other)
		op->kind = RENAME;
	random_name(model, op->name);
	random_attr(&op->attr);
	random_writer(&op->writer);
	op->xattr = (unsigned)random() % XATTRS;
	op->len = random() % 30 ? (size_t)(random() % 200) : VALUE_MAX;
	op->seed = (uint8_t)random();
	if (op->kind == CREATE)
		return;
	op->id = op->attr.id = region->id;
	if (op->kind == CHANGE && random() % 2)
		strcpy(op->name, region->name);
	if (op->kind == REPLACE || op->kind == EXCHANGE) {
		op->other_id = other->id;
		strcpy(op->name, other->name);
		strcpy(op->other_name, region->name);
	}
	if (op->kind == XATTR_DEL && !region->xattrs[op->xattr].set)
		op->kind = XATTR_SET;
}

static void model_apply(struct model *model, const struct op *op)
{
	struct model_region *region = model_find(model, op->kind == CREATE ? 0 : op->id);

	switch (op->kind) {
	case CREATE:
		memset(region, 0, sizeof(*region));
		region->id = op->id;
		/* fall through */
	case CHANGE:
		region->attr = op->attr;
		region->writer = op->writer;
		/* fall through */
	case RENAME:
		strcpy(region->name, op->name);
		break;
	case REMOVE:
		region->id = 0;
		break;
	case REPLACE:
		model_find(model, op->other_id)->id = 0;
		strcpy(region->name, op->name);
		break;
	case EXCHANGE:
		strcpy(model_find(model, op->other_id)->name, op->other_name);
		strcpy(region->name, op->name);
		break;
	case XATTR_SET:
		region->xattrs[op->xattr].set = true;
		region->xattrs[op->xattr].len = op->len;
		region->xattrs[op->xattr].seed = op->seed;
		break;
	default:
		region->xattrs[op->xattr].set = false;
	}
}

static int catalogue_apply(struct catalogue *cat, const struct op *op, struct err *err)
{
	*err = (struct err){0};
	switch (op->kind) {
	case CREATE:
	case CHANGE:
		return catalogue_put(cat, op->name, &op->attr, &op->writer, err);
	case REMOVE:
		return catalogue_remove(cat, op->id, err);
	case RENAME:
		return catalogue_rename(cat, op->id, op->name, 0, NULL, err);
	case REPLACE:
		return catalogue_rename(cat, op->id, op->name, op->other_id, NULL, err);
	case EXCHANGE:
		return catalogue_rename(cat, op->id, op->name, op->other_id, op->other_name, err);
	case XATTR_SET:
		return catalogue_put_xattr(
		    cat, op->id, xattr_names[op->xattr], value_of(op->len, op->seed), op->len, err);
	default:
		return catalogue_put_xattr(cat, op->id, xattr_names[op->xattr], NULL, 0, err);
	}
}

struct comparison {
	struct model *model;
	unsigned regions, xattrs;
	bool equal;
};

static void compare_region(void *ctx, const char *name, const struct region_attr *attr,
    const struct catalogue_writer *writer)
{
	struct comparison *cmp = ctx;
	const struct model_region *region = model_find(cmp->model, attr->id);

	cmp->regions++;
	if (!region || strcmp(name, region->name) || attr->size != region->attr.size ||
	    attr->version != region->attr.version || attr->mode != region->attr.mode ||
	    attr->uid != region->attr.uid || attr->gid != region->attr.gid ||
	    attr->atime_ns != region->attr.atime_ns || attr->mtime_ns != region->attr.mtime_ns ||
	    attr->ctime_ns != region->attr.ctime_ns || attr->nlink != 1 ||
	    writer->writer != region->writer.writer || writer->base != region->writer.base ||
	    writer->writing != region->writer.writing)
		cmp->equal = false;
}

static void compare_xattr(void *ctx, uint64_t id, const char *name, const void *value, size_t len)
{
	struct comparison *cmp = ctx;
	const struct model_region *region = model_find(cmp->model, id);
	unsigned i = !strcmp(name, xattr_names[1]);

	cmp->xattrs++;
	if (!region || strcmp(name, xattr_names[i]) || !region->xattrs[i].set ||
	    len != region->xattrs[i].len ||
	    memcmp(value, value_of(len, region->xattrs[i].seed), len))
		cmp->equal = false;
}

/* True if the catalogue holds what the model does. */
static bool same(struct catalogue *cat, struct model *model)
{
	struct comparison cmp = {.model = model, .equal = true};
	unsigned regions = 0, xattrs = 0;
	struct err err;

	ck_assert_msg(
	    !catalogue_load(cat, compare_region, compare_xattr, &cmp, &err), "%s", err.text);
	for (unsigned i = 0; i < REGIONS; i++) {
		regions += model->regions[i].id != 0;
		for (unsigned j = 0; model->regions[i].id && j < XATTRS; j++)
			xattrs += model->regions[i].xattrs[j].set;
	}
	return cmp.equal && cmp.regions == regions && cmp.xattrs == xattrs;
}

#endif
