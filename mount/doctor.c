/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of findings of `remram doctor`, and how it is printed; see doctor.h.
 */
#include "mount/doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { PRINT_WIDTH = 80, FOUND_COLUMN = 31, ADVICE_COLUMN = 10 };

static const char *const level_names[] = {"pass", "note", "warn", "fail"};

void doctor_init(struct doctor *doctor)
{
	memset(doctor, 0, sizeof(*doctor));
	strcpy(doctor->where, "machine");
}

void doctor_fini(struct doctor *doctor)
{
	free(doctor->findings);
	doctor->findings = NULL;
}

static struct doctor_finding *new_finding(struct doctor *doctor)
{
	if (doctor->count == doctor->room) {
		doctor->room += 32;
		doctor->findings =
		    realloc(doctor->findings, doctor->room * sizeof(*doctor->findings));
		if (!doctor->findings)
			abort();
	}
	memset(&doctor->findings[doctor->count], 0, sizeof(*doctor->findings));
	return &doctor->findings[doctor->count++];
}

void doctor_add(
    struct doctor *doctor, enum doctor_level level, const char *check, const char *fmt, ...)
{
	struct doctor_finding *finding = new_finding(doctor);
	va_list ap;

	memcpy(finding->where, doctor->where, sizeof(finding->where));
	finding->check = check;
	finding->level = level;
	va_start(ap, fmt);
	vsnprintf(finding->found, sizeof(finding->found), fmt, ap);
	va_end(ap);
}

void doctor_advise(struct doctor *doctor, const char *fmt, ...)
{
	struct doctor_finding *finding = &doctor->findings[doctor->count - 1];
	va_list ap;

	if (finding->level == DOCTOR_PASS)
		return;
	va_start(ap, fmt);
	vsnprintf(finding->advice, sizeof(finding->advice), fmt, ap);
	va_end(ap);
}

enum doctor_level doctor_worst(const struct doctor *doctor)
{
	enum doctor_level worst = DOCTOR_PASS;
	unsigned i;

	for (i = 0; i < doctor->count; i++) {
		if (doctor->findings[i].level > worst)
			worst = doctor->findings[i].level;
	}
	return worst;
}

/* Prints text at the current column, broken at spaces, further lines indented. */
static void print_wrapped(const char *text, unsigned column, unsigned indent, FILE *out)
{
	while (*text) {
		size_t len = strcspn(text, " ");
		if (column + len >= PRINT_WIDTH && column > indent) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		fprintf(out, "%.*s", (int)len, text);
		column += (unsigned)len;
		text += len;
		if (*text == ' ') {
			text++;
			if (column + strcspn(text, " ") + 1 < PRINT_WIDTH)
				putc(' ', out);
			column++;
		}
	}
	putc('\n', out);
}

void doctor_print(const struct doctor *doctor, FILE *out)
{
	unsigned i;

	for (i = 0; i < doctor->count; i++) {
		const struct doctor_finding *finding = &doctor->findings[i];
		if (i == 0 || strcmp(finding->where, finding[-1].where))
			fprintf(out, "%s%s\n", i ? "\n" : "", finding->where);
		fprintf(out, "  %s  %-22s ", level_names[finding->level], finding->check);
		print_wrapped(finding->found, FOUND_COLUMN, FOUND_COLUMN, out);
		if (!finding->advice[0])
			continue;
		fputs("        → ", out);
		print_wrapped(finding->advice, ADVICE_COLUMN, ADVICE_COLUMN, out);
	}
}

void doctor_print_json(const struct doctor *doctor, FILE *out)
{
	unsigned i;

	fprintf(out, "{\"result\":\"%s\",\"checks\":[", level_names[doctor_worst(doctor)]);
	for (i = 0; i < doctor->count; i++) {
		const struct doctor_finding *finding = &doctor->findings[i];
		fputs(i ? ",\n{\"where\":" : "\n{\"where\":", out);
		json_write_string(out, finding->where);
		fputs(",\"check\":", out);
		json_write_string(out, finding->check);
		fprintf(out, ",\"level\":\"%s\",\"found\":", level_names[finding->level]);
		json_write_string(out, finding->found);
		fputs(",\"advice\":", out);
		json_write_string(out, finding->advice);
		putc('}', out);
	}
	fputs("]}\n", out);
}
