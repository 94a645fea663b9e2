/* SPDX-License-Identifier: Apache-2.0
 *
 * What `remram top` makes of the daemons' answers: numbers, rates, maps, and a frame that fits the terminal.
 */
#include "mount/top.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount/screen.h"

#define MIB ((uint64_t)1 << 20)

static struct top_sample now, before;
static char *out;
static size_t out_len;

static const char managed[] =
    "{\"connection\":{\"state\":\"connected\",\"since_ms\":90000,\"rtt_us\":10100,\"in_flight\":23,"
    "\"bytes_in\":%1$u,\"bytes_out\":1048576},"
    "\"requests\":{\"read\":{\"count\":100,\"bytes\":%1$u},\"write\":{\"count\":3,\"bytes\":12288}},"
    "\"cache\":{\"dir\":null,\"size\":4294967296,\"resident\":1288490188,\"max_dirty\":268435456,"
    "\"dirty\":12582912,\"oldest_dirty_ms\":800,\"writers_waiting\":2},"
    "\"regions\":[{\"name\":\"work\",\"id\":\"18446744073709551615\",\"size\":4294967296,\"open\":2,\"lease\":\"held\","
    "\"state\":\"open\",\"recovering\":false,\"cache\":{\"resident\":1288490188,\"dirty\":12582912,"
    "\"oldest_dirty_ms\":800,\"pulling\":33554432,\"pushing\":0,\"fetched\":%1$u,\"pushed\":5}},"
    "{\"name\":\"a\\u001b[2J\",\"id\":8,\"open\":0,\"state\":\"lost\",\"cache\":null}]}";

static void setup(void)
{
	setenv("LC_ALL", "C.UTF-8", 1);
}

static void teardown(void)
{
	top_fini(&now);
	top_fini(&before);
	free(out);
	out = NULL;
}

static void add(struct top_sample *sample, const char *dir, const char *answer)
{
	struct status *status = calloc(1, sizeof(*status));
	struct err err;

	strcpy(status->state.dir, dir);
	strcpy(status->state.source, "donor:/ram");
	if (answer)
		ck_assert_int_eq(json_parse(answer, strlen(answer), &status->daemon, &err), 0);
	else
		status->health = STATUS_DEAD;
	ck_assert_int_eq(top_add(sample, status), 0);
	status_fini(status);
	free(status);
}

static void add_managed(struct top_sample *sample, const char *dir, unsigned bytes)
{
	char text[4096];

	snprintf(text, sizeof(text), managed, bytes);
	add(sample, dir, text);
}

static unsigned draw(const struct top_view *view)
{
	struct top_view with_clock = *view;
	unsigned body;
	FILE *file;

	free(out);
	with_clock.clock = "13:45:10";
	file = open_memstream(&out, &out_len);
	body = top_print(&now, &with_clock, file);
	fclose(file);
	return body;
}

static void has(const char *text)
{
	ck_assert_msg(strstr(out, text), "\"%s\" is not in:\n%s", text, out);
}

static unsigned count_lines(unsigned *ret_widest)
{
	unsigned lines = 0;

	*ret_widest = 0;
	for (char *line = out, *end; line; line = end) {
		char *copy;
		unsigned used;

		end = strchr(line, '\n');
		copy = end ? strndup(line, (size_t)(end - line)) : strdup(line);
		used = screen_columns(copy);
		free(copy);
		*ret_widest = used > *ret_widest ? used : *ret_widest;
		end = end ? end + 1 : NULL;
		lines++;
	}
	return lines;
}

START_TEST(frame)
{
	const struct top_view view = {.columns = 80};
	char answer[64] = "{\"id\":7,\"cells\":[[1000,0,0],[300,0,0],[0,0,1],[1000,5,0]]}";

	before.at_ms = 1000;
	now.at_ms = 3000;
	add_managed(&before, "/mnt/remote", 0);
	add_managed(&now, "/mnt/remote", 2 * 8 * MIB);
	add(&now, "/mnt/dead", NULL);
	top_rates(&now, &before);
	ck_assert_int_eq(top_set_map(&now.mounts[0].regions[0], answer), 0);
	draw(&view);
	ck_assert_uint_eq(now.mounts[0].regions[0].id, UINT64_MAX);
	has("remram top  13:45:10  2 mounts\n");
	has("/mnt/remote: donor:/ram\n"
	    "  connected, round trip 10 ms, 23 in flight\n"
	    "  cache 1.2 GiB of 4.0 GiB, dirty 12.0 MiB of 256.0 MiB (800 ms), 2 writers WAIT\n"
	    "  read 8.0 MiB/s (0/s), write 0 B/s (0/s), donor in 8.0 MiB/s, out 0 B/s\n"
	    "  work                  4.0 GiB  29.9 %  dirty 12.0 MiB (800 ms)  in 8.0 MiB/s  \n");
	has("\n  █░▸▚\n");
	/* What a name contains does not reach the terminal. */
	has("\n  a?[2J                       ?  LEASE LOST\n");
	has("\n\n/mnt/dead: donor:/ram\n  the daemon is DEAD: umount cleans up\n");
	has("▚ dirty\n");
}
END_TEST

START_TEST(rates)
{
	before.at_ms = 1000;
	now.at_ms = 1500;
	add_managed(&before, "/other", 0);
	add_managed(&before, "/m", 4096);
	add_managed(&now, "/m", 1024 + 4096);
	top_rates(&now, &before);
	ck_assert_double_eq(now.mounts[0].read_rate, 2048);
	ck_assert_double_eq(now.mounts[0].in_rate, 2048);
	ck_assert_double_eq(now.mounts[0].regions[0].fetch_rate, 2048);
	ck_assert_double_eq(now.mounts[0].regions[0].push_rate, 0);
	/* A daemon that has begun anew, and one that was not there. */
	top_fini(&before);
	add_managed(&before, "/m", 1 << 20);
	top_rates(&now, &before);
	ck_assert_double_eq(now.mounts[0].read_rate, 0);
	top_fini(&before);
	top_fini(&now);
	now.at_ms = 5;
	add_managed(&now, "/m", 77);
	top_rates(&now, &before);
	ck_assert_double_eq(now.mounts[0].read_rate, 0);
}
END_TEST

/* Any size of terminal, with and without maps and scrolling: the frame has exactly its lines, and none is too
 * wide. */
START_TEST(fits)
{
	static const unsigned columns[] = {1, 20, 40, 80, 200, 5000};
	static const unsigned lines[] = {1, 2, 3, 5, 24, 60};

	add_managed(&now, "/mnt/a/rather/long/name/of/a/directory/so/that/it/needs/to/be/cut", 1);
	add_managed(&now, "/mnt/b", 2);
	for (unsigned i = 0; i < 6 * 6 * 4; i++) {
		struct top_view view = {.columns = columns[i % 6],
		    .lines = lines[i / 6 % 6],
		    .skip = (i / 36) * 3,
		    .style = {.colour = i & 1, .ascii = i & 2}};
		struct map_cell *cells;
		unsigned count = top_map_cells(&now, &view), widest;

		ck_assert_uint_ge(count, 1);
		ck_assert_uint_le(count, MAP_CELLS_MAX);
		cells = calloc(count, sizeof(*cells));
		for (unsigned k = 0; k < count; k++)
			cells[k] = (struct map_cell){(uint16_t)(k % 1001), k % 3 == 0, k % 5 == 0};
		free(now.mounts[1].regions[0].cells);
		now.mounts[1].regions[0].cells = cells;
		now.mounts[1].regions[0].cell_count = count;
		draw(&view);
		ck_assert_uint_eq(count_lines(&widest), view.lines < 2 ? 2 : view.lines);
		ck_assert_uint_le(widest, view.columns);
		if (view.style.ascii) {
			for (size_t k = 0; k < out_len; k++)
				ck_assert_int_ge(out[k], 0);
		}
	}
}
END_TEST

START_TEST(map_rows)
{
	struct top_view view = {.columns = 80, .lines = 24};

	add_managed(&now, "/m", 0);
	/* One region with a cache: as many rows as there may be. */
	ck_assert_uint_eq(top_map_cells(&now, &view), 78 * TOP_MAP_ROWS);
	view.lines = 10;
	ck_assert_uint_eq(top_map_cells(&now, &view), 78 * 2);
	view.lines = 3;
	ck_assert_uint_eq(top_map_cells(&now, &view), 78);
	view.lines = 0;
	ck_assert_uint_eq(top_map_cells(&now, &view), 78);
}
END_TEST

START_TEST(scrolling)
{
	struct top_view view = {.columns = 80, .lines = 5};
	unsigned body;

	add_managed(&now, "/one", 0);
	add_managed(&now, "/two", 0);
	body = draw(&view);
	ck_assert_uint_eq(body, 2 * 6 + 1);
	has("/one");
	ck_assert_ptr_null(strstr(out, "/two"));
	view.skip = 7;
	draw(&view);
	ck_assert_ptr_null(strstr(out, "/one"));
	has("13:45:10  2 mounts\n/two");
}
END_TEST

START_TEST(strange)
{
	const struct top_view view = {.columns = 80};
	struct top_region *region;

	draw(&view);
	has("no remram mounts\n");
	add(&now, "/m", "{}");
	add(&now, "/n", "{\"regions\":{\"a\":1},\"cache\":[],\"connection\":7,\"requests\":null}");
	add(&now, "/o", "{\"regions\":[3,{\"cache\":{\"resident\":-5,\"dirty\":\"x\"}}]}");
	draw(&view);
	has("a place on this machine");
	region = &now.mounts[2].regions[1];
	ck_assert(region->cached);
	ck_assert_int_eq(top_set_map(region, "no JSON"), -EINVAL);
	ck_assert_int_eq(top_set_map(region, "{}"), -EINVAL);
	ck_assert_int_eq(top_set_map(region, "{\"cells\":[]}"), -EINVAL);
	ck_assert_int_eq(top_set_map(region, "{\"cells\":[[99999,-1],7,[],[1000,0,1]]}"), 0);
	ck_assert_uint_eq(region->cell_count, 4);
	ck_assert_uint_eq(region->cells[0].resident, 0);
	ck_assert_uint_eq(region->cells[0].dirty, 0);
	ck_assert(region->cells[3].busy);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("top");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, frame);
	tcase_add_test(tc, rates);
	tcase_add_test(tc, fits);
	tcase_add_test(tc, map_rows);
	tcase_add_test(tc, scrolling);
	tcase_add_test(tc, strange);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
