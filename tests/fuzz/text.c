/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: what people write: URIs, sizes, durations, the source and the options of a mount.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/uri.h"
#include "mount/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const schemes[] = {"memory", "file", NULL};
	static struct mount_conf conf;
	struct mount_source source;
	struct uri uri;
	struct err err;
	uint64_t value;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	uri_parse(text, &uri, &err);
	size_parse(text, &value);
	duration_parse(text, &value);
	source_parse(text, schemes, &source, &err);
	memset(&conf, 0, sizeof(conf));
	mount_conf_init(&conf);
	if (mount_conf_options(&conf, text, &err) == 0)
		mount_conf_finish(&conf, &err);
	mount_conf_fini(&conf);
	free(text);
	return 0;
}
