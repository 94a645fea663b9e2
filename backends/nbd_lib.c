/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading libnbd; see nbd_lib.h.  It is never let go: its libraries have threads' data and exit handlers.
 */
#include "backends/nbd_lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define LIBRARY "libnbd.so.0"

struct libnbd libnbd;

static void *lib;

int libnbd_load(struct err *err)
{
	static const char *const names[] = {
#define LIBNBD_NAME(name) "nbd_" #name,
	    LIBNBD_FUNCTIONS(LIBNBD_NAME)
#undef LIBNBD_NAME
	};
	void *functions[sizeof(names) / sizeof(names[0])];
	void *opened;

	_Static_assert(sizeof(functions) == sizeof(libnbd), "a pointer for each function");
	if (lib)
		return 0;
	opened = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!opened)
		return err_set(err, -ENOENT,
		    "NBD servers need " LIBRARY ", which is in Debian's package libnbd0: %s",
		    dlerror());
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		functions[i] = dlsym(opened, names[i]);
		if (!functions[i]) {
			dlclose(opened);
			return err_set(err, -ENOENT,
			    LIBRARY " has no %s: it is older than this program", names[i]);
		}
	}
	/* As POSIX has it, a pointer to a function may be kept as one to void. */
	memcpy(&libnbd, functions, sizeof(libnbd));
	lib = opened;
	return 0;
}
