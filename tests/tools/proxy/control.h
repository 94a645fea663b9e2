/* SPDX-License-Identifier: Apache-2.0
 *
 * Where commands come from, a line each: connections to a Unix socket, and standard input.
 *
 * Fails: what can't be opened ends the program with TOOL_SETUP.  A controller that sends a line too long is
 * cut off; one that doesn't read its answers loses them.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_CONTROL_H
#define REMRAM_TESTS_TOOLS_PROXY_CONTROL_H

/* A socket at `path`, which it keeps; one that is there already is replaced. */
void control_open(const char *path);

/* The end of standard input, or of who reads standard output, is the end of the proxy. */
void control_open_stdin(void);

/* Frees the controllers that have gone: no event of the round may be left. */
void control_sweep(void);

/* Removes the socket, if there is one. */
void control_close(void);

#endif
