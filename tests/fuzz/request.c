/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: what a donor decodes of a client's bytes.  Input: a request header, then its body.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_req frame;
	struct frame_hello hello;
	struct frame_names names = {0};
	struct pool_req req;
	const char *why;
	uint8_t *body;

	if (size < FRAME_REQ_LEN || frame_req_get(data, &frame, &why))
		return 0;
	data += FRAME_REQ_LEN;
	size -= FRAME_REQ_LEN;
	if (frame.payload > size)
		frame.payload = (uint32_t)size;
	/* A copy of its exact length: a read beyond it is seen. */
	body = malloc(frame.payload ? frame.payload : 1);
	if (!body)
		return 0;
	memcpy(body, data, frame.payload);
	if (frame.op == FRAME_HELLO)
		frame_hello_get(body, frame.payload, &hello);
	else if (frame.op >= FRAME_LOOKUP && frame.op < FRAME_READ &&
		 frame_control_get(&frame, body, &req, &names) == 0 &&
		 memchr(names.name, 0, sizeof(names.name)) == NULL)
		abort();
	free(body);
	return 0;
}
