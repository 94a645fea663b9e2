/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram top` shows: the answers of the mounts' daemons as plain numbers (top_model.c), and a frame of
 * text made of them (top_frame.c).  Neither knows a terminal; mount/cmd_top.c does.
 */
#ifndef REMRAM_MOUNT_TOP_H
#define REMRAM_MOUNT_TOP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/err.h"
#include "core/pool.h"
#include "mount/json.h"
#include "mount/map.h"
#include "mount/status.h"

enum {
	TOP_NOTE_MAX = 128, /* bytes of a text that a daemon gives */
	TOP_MAP_ROWS = 4, /* most lines of one map */
};

struct top_region {
	char name[3 * POOL_NAME_MAX + 1];
	uint64_t id; /* 0: the daemon has none for it */
	bool has_size, cached;
	uint64_t size; /* bytes, as everything here */
	unsigned opens;
	char state[16], lease[16]; /* as in status --json; "" if it says none */
	bool recovering, recording;

	/* With cached. */
	uint64_t resident, dirty, pulling, pushing, oldest_dirty_ms;
	uint64_t fetched, pushed; /* since the mount */
	double fetch_rate, push_rate; /* bytes per second */
	bool push_failing;
	struct map_cell *cells; /* owned */
	unsigned cell_count;
};

struct top_mount {
	char dir[PATH_MAX], source[PATH_MAX];
	enum status_health health;
	char trouble[ERR_TEXT_MAX]; /* unless it is live */

	bool connection; /* it has one; then: */
	char connection_state[16];
	double since_ms, rtt_us;
	unsigned in_flight;
	uint64_t bytes_in, bytes_out;

	uint64_t read_bytes, write_bytes, reads, writes; /* of programs, since the mount */
	double in_rate, out_rate, read_rate, write_rate; /* bytes per second */
	double reads_rate, writes_rate; /* per second */

	bool managed; /* it has a cache; then: */
	uint64_t cache_size, cache_resident, max_dirty, dirty,
	    oldest_dirty_ms; /* sizes 0: no bound */
	unsigned writers_waiting;

	struct top_region *regions; /* owned */
	unsigned region_count;
};

struct top_sample {
	uint64_t at_ms; /* sys_now_ms() */
	struct top_mount *mounts; /* owned */
	unsigned mount_count;
};

/* Adds a mount; 0 or -ENOMEM. */
int top_add(struct top_sample *sample, const struct status *status);
/* Takes the answer to "map ID CELLS" (mount/control.h): 0, -EINVAL, -ENOMEM. */
int top_set_map(struct top_region *region, const char *answer);
/* The rates, from what has been counted since `before` (which may be empty, or have other mounts). */
void top_rates(struct top_sample *sample, const struct top_sample *before);
/* Frees what it owns and makes it empty. */
void top_fini(struct top_sample *sample);

struct top_view {
	unsigned columns, lines; /* of the terminal; lines 0: as many as there are to print */
	unsigned skip; /* lines of the body that are scrolled away */
	struct map_style style;
	const char *clock; /* "13:45:10" */
	bool keys; /* say which keys there are */
};

/* How many cells the map of each region should have, so that a frame of this size shows as much as it can. */
unsigned top_map_cells(const struct top_sample *sample, const struct top_view *view);

/* Prints a frame: lines of at most `columns` columns; with view->lines exactly as many lines, the last one
 * without a newline.  Returns the lines of the body that there are (how far it can be scrolled), 0 if
 * memory is short. */
unsigned top_print(const struct top_sample *sample, const struct top_view *view, FILE *out);

#endif
