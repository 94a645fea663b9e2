/* SPDX-License-Identifier: Apache-2.0
 *
 * A region as a row of characters; see map.h.
 *
 * What matters more hides what matters less: dirty, then busy, then how much is resident.
 */
#include "mount/map.h"

#include <stddef.h>

enum glyph { ABSENT, LITTLE, HALF, MOST, RESIDENT, BUSY, DIRTY, GLYPHS };

static const struct {
	const char *text, *ascii, *colour, *meaning;
} glyphs[GLYPHS] = {
    [ABSENT] = {"·", ".", NULL, "at the donor"},
    [LITTLE] = {"░", "-", NULL, NULL},
    [HALF] = {"▒", "=", NULL, NULL},
    [MOST] = {"▓", "+", NULL, "partly here"},
    [RESIDENT] = {"█", "#", NULL, "here"},
    [BUSY] = {"▸", ">", "36", "on its way"},
    [DIRTY] = {"▚", "D", "33", "dirty"},
};

uint16_t map_share(uint64_t part, uint64_t of)
{
	uint64_t share;

	if (part == 0 || of == 0)
		return 0;
	if (part >= of)
		return MAP_WHOLE;
	share = (uint64_t)((double)part / (double)of * MAP_WHOLE);
	return (uint16_t)(share == 0 ? 1 : share >= MAP_WHOLE ? MAP_WHOLE - 1 : share);
}

static enum glyph glyph_of(const struct map_cell *cell)
{
	if (cell->dirty)
		return DIRTY;
	if (cell->busy)
		return BUSY;
	if (cell->resident == 0)
		return ABSENT;
	if (cell->resident >= MAP_WHOLE)
		return RESIDENT;
	return cell->resident < MAP_WHOLE / 3       ? LITTLE
	       : cell->resident < 2 * MAP_WHOLE / 3 ? HALF
						    : MOST;
}

static const char *text_of(enum glyph glyph, const struct map_style *style)
{
	return style->ascii ? glyphs[glyph].ascii : glyphs[glyph].text;
}

/* Changes from one colour to another; NULL: none. */
static void set_colour(FILE *out, const char *from, const char *to, const struct map_style *style)
{
	if (style->colour && from != to)
		fprintf(out, "\033[%sm", to ? to : "0");
}

void map_print(
    FILE *out, const struct map_cell *cells, unsigned count, const struct map_style *style)
{
	const char *colour = NULL;

	for (unsigned i = 0; i < count; i++) {
		enum glyph glyph = glyph_of(&cells[i]);

		set_colour(out, colour, glyphs[glyph].colour, style);
		colour = glyphs[glyph].colour;
		fputs(text_of(glyph, style), out);
	}
	set_colour(out, colour, NULL, style);
}

void map_print_legend(FILE *out, const struct map_style *style)
{
	const char *gap = "";

	for (enum glyph glyph = ABSENT; glyph < GLYPHS; glyph++) {
		fputs(gap, out);
		set_colour(out, NULL, glyphs[glyph].colour, style);
		fputs(text_of(glyph, style), out);
		set_colour(out, glyphs[glyph].colour, NULL, style);
		if (glyphs[glyph].meaning)
			fprintf(out, " %s", glyphs[glyph].meaning);
		gap = glyphs[glyph].meaning ? "  " : "";
	}
}
