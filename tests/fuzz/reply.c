/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: what a client decodes of a donor's bytes.  Input: the operation that was asked for (one
 * byte of enum pool_op, or above), a reply header, then its payload.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The results of a control request, into buffers of the length that was asked for. */
static void control(enum pool_op op, uint8_t flags, const uint8_t *body, size_t len)
{
	struct pool_req req = {.op = op, .len = op == POOL_LIST ? 4096 : 300};

	req.data = malloc(req.len);
	if (req.data && frame_result_get(&req, flags, body, len) == 0 && req.len < req.ret_len)
		abort();
	free(req.data);
}

static void extents(const uint8_t *body, size_t len)
{
	struct extent found[16];
	uint64_t end = 1 << 20;
	unsigned count;

	if (frame_extents_get(body, len, 4096, end - 4096, found, 16, &count))
		return;
	for (unsigned i = 0; i < count; i++)
		if (found[i].len == 0 || found[i].off + found[i].len > end)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_welcome welcome;
	struct pool_notice notice;
	char text[POOL_HOLDER_MAX];
	struct frame_rep rep;
	const char *why;
	uint8_t *body;

	if (size < 1 + FRAME_REP_LEN || frame_rep_get(data + 1, &rep, &why))
		return 0;
	size -= 1 + FRAME_REP_LEN;
	if (rep.payload > size)
		rep.payload = (uint32_t)size;
	body = malloc(rep.payload ? rep.payload : 1);
	if (!body)
		return 0;
	memcpy(body, data + 1 + FRAME_REP_LEN, rep.payload);
	if (data[0] < POOL_OPS)
		control((enum pool_op)data[0], rep.flags, body, rep.payload);
	else if (data[0] == POOL_OPS)
		extents(body, rep.payload);
	else if (rep.id == FRAME_ID_NOTICE)
		frame_notice_get(body, rep.payload, &notice);
	else if (rep.status)
		frame_text_get(text, sizeof(text), body, rep.payload);
	else
		frame_welcome_get(body, rep.payload, &welcome);
	free(body);
	return 0;
}
