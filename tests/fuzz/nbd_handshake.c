/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: an NBD client's whole conversation, from its flags on.  Input: what the client sends.
 */
#include "tests/lib/nbdfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	nbdfuzz_run(data, 0, data, size);
	return 0;
}
