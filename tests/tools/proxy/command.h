/* SPDX-License-Identifier: Apache-2.0
 *
 * The proxy's commands: the table is at the head of tests/tools/proxy.c.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_COMMAND_H
#define REMRAM_TESTS_TOOLS_PROXY_COMMAND_H

#include <stddef.h>

/* Runs one command, which it takes apart; *answer gets the reply without a line end: "ok…" or "error: …". */
void command_run(char *line, char *answer, size_t room);

#endif
