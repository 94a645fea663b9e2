/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place that calls pool_ops: checks names and arguments before a pool sees them.
 */
#include "core/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/loop.h"

int pool_check_name(const char *name, size_t len)
{
	if (len > POOL_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || memchr(name, '/', len) || memchr(name, 0, len))
		return -EINVAL;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return -EINVAL;
	return 0;
}

int pool_check_mode(uint32_t mode, unsigned access)
{
	if ((access & POOL_READ) && !(mode & 0444))
		return -EACCES;
	if ((access & POOL_WRITE) && !(mode & 0222))
		return -EACCES;
	return 0;
}

static int check_xattr_name(const char *name)
{
	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return name[5] ? 0 : -EINVAL;
}

static int check(const struct pool_req *req)
{
	int rc = 0;

	switch (req->op) {
	case POOL_RENAME:
		rc = pool_check_name(req->new_name, strlen(req->new_name));
		if (rc)
			return rc;
		/* fallthrough */
	case POOL_LOOKUP:
	case POOL_CREATE:
	case POOL_REMOVE:
		return pool_check_name(req->name, strlen(req->name));
	case POOL_SETXATTR:
		if (req->len > POOL_XATTR_VALUE_MAX)
			return -E2BIG;
		/* fallthrough */
	case POOL_GETXATTR:
	case POOL_REMOVEXATTR:
		if (strlen(req->name) > POOL_XATTR_NAME_MAX)
			return -ERANGE;
		return check_xattr_name(req->name);
	default:
		return 0;
	}
}

void pool_submit(struct pool *pool, struct pool_req *req)
{
	int rc = check(req);

	assert((unsigned)req->op < POOL_OPS && req->done && req->session);
	req->loop = loop_self();
	req->next = NULL;
	req->ret_holder[0] = 0;
	if (rc)
		pool_complete(req, rc);
	else
		pool->ops->submit(pool, req);
}

void pool_complete(struct pool_req *req, int err)
{
	assert(err <= 0);
	req->done(req, err);
}

void pool_interrupt(struct pool *pool, struct pool_req *req)
{
	if (pool->ops->interrupt)
		pool->ops->interrupt(pool, req);
}

void pool_destroy(struct pool *pool)
{
	if (pool)
		pool->ops->destroy(pool);
}
