/* SPDX-License-Identifier: Apache-2.0
 *
 * What the proxy's loop watches: descriptors, each with a function for its events.  One epoll descriptor has
 * them all, and one thread runs everything.
 *
 * Fails: what epoll doesn't take ends the program with TOOL_SETUP.
 */
#ifndef REMRAM_TESTS_TOOLS_PROXY_SOURCE_H
#define REMRAM_TESTS_TOOLS_PROXY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

/* Made with its first two fields; it stays where it is while it is watched, and until the end of a round
 * whose events may name it. */
struct source {
	void (*ready)(struct source *source, uint32_t events); /* the events are epoll's */
	int fd; /* -1: none */
	uint32_t watched; /* the events registered; 0 and !added: not registered */
	bool added;
};

/* Before any other function of this module. */
void sources_open(void);

/* Registers exactly `events`; with 0 the descriptor leaves epoll, because EPOLLHUP can't be masked. */
void source_watch(struct source *source, uint32_t events);

/* Closes the descriptor, if there is one. */
void source_close(struct source *source);

/* One round: waits for events, and calls the functions of their sources.  False, at once: sources_stop was
 * called in an earlier round. */
bool sources_wait(void);

/* This round is the last. */
void sources_stop(void);

#endif
