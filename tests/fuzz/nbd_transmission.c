/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: an NBD client's requests.  Input: a byte that chooses simple, structured or extended replies and
 * the export, then what the client sends after the handshake.
 */
#include <string.h>

#include "export/nbd_wire.h"
#include "tests/lib/nbdfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *put_option(uint8_t *p, uint32_t option, const void *data, uint32_t len)
{
	memcpy(p, "IHAVEOPT", 8);
	p = nbd_put32(p + 8, option);
	p = nbd_put32(p, len);
	memcpy(p, data, len);
	return p + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char meta[] = "\0\0\0\10ram/work\0\0\0\3\0\0\0\17base:allocation"
				   "\0\0\0\17remram:resident\0\0\0\14remram:dirty";
	static const char *const exports[] = {
	    "\0\0\0\10ram/work\0\0", "\0\0\0\11ram/small\0\0", "\0\0\0\13ram/work/ro\0\0"};
	static const uint8_t lens[] = {14, 15, 17};
	uint8_t head[256], *p = nbd_put32(head, NBD_FIXED_NEWSTYLE);
	unsigned mode, export;

	if (size == 0)
		return 0;
	mode = data[0] % 3;
	export = data[0] / 3 % 3;
	if (mode == NBD_STRUCTURED)
		p = put_option(p, NBD_O_STRUCTURED_REPLY, "", 0);
	if (mode == NBD_EXTENDED)
		p = put_option(p, NBD_O_EXTENDED_HEADERS, "", 0);
	if (mode != NBD_SIMPLE)
		p = put_option(p, NBD_O_SET_META_CONTEXT, meta, sizeof(meta) - 1);
	p = put_option(p, NBD_O_GO, exports[export], lens[export]);
	nbdfuzz_run(head, (size_t)(p - head), data + 1, size - 1);
	return 0;
}
