/* SPDX-License-Identifier: Apache-2.0
 *
 * rename FLAG OLD NEW: renameat2(2) with one of its flags, which mv can't ask for: plain, noreplace, exchange
 * or whiteout.  Prints "ok" or the error's name, and succeeds either way: the test compares what is printed.
 */
#include <fcntl.h>
#include <stdio.h>

#include "tests/tools/tool.h"

int main(int argc, char **argv)
{
	static const char *const flags[] = {"plain", "noreplace", "exchange", "whiteout"};
	static const unsigned values[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT};

	for (unsigned i = 0; argc == 4 && i < sizeof(values) / sizeof(values[0]); i++) {
		if (strcmp(argv[1], flags[i]) != 0)
			continue;
		if (renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], values[i]) == 0)
			puts("ok");
		else
			puts(strerrorname_np(errno));
		return TOOL_OK;
	}
	fputs("usage: rename plain|noreplace|exchange|whiteout OLD NEW\n", stderr);
	return TOOL_USAGE;
}
