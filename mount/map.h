/* SPDX-License-Identifier: Apache-2.0
 *
 * A region as a row of characters, one for each cell: what of it is here, what is dirty, where a transfer
 * is under way.
 */
#ifndef REMRAM_MOUNT_MAP_H
#define REMRAM_MOUNT_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { MAP_WHOLE = 1000, MAP_CELLS_MAX = 4096 };

/* A part of a region; of MAP_WHOLE.  0 is nothing at all, MAP_WHOLE is everything. */
struct map_cell {
	uint16_t resident, dirty;
	bool busy; /* a pull or push is under way in there */
};

struct map_style {
	bool ascii; /* no characters beyond ASCII */
	bool colour; /* escape sequences for colour */
};

/* The part of `of` that `part` is, rounded so that only nothing is 0 and only everything is MAP_WHOLE. */
uint16_t map_share(uint64_t part, uint64_t of);

/* Prints count characters, without a newline. */
void map_print(
    FILE *out, const struct map_cell *cells, unsigned count, const struct map_style *style);

/* Prints what the characters mean, in one line without a newline, of at most 80 columns. */
void map_print_legend(FILE *out, const struct map_style *style);

#endif
