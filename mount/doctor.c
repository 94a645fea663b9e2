/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of findings of `remram doctor`, and how it is printed; see doctor.h.
 */
#include "mount/doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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

void doctor_print(const struct doctor *doctor, FILE *out)
{
	unsigned i;

	for (i = 0; i < doctor->count; i++) {
		const struct doctor_finding *finding = &doctor->findings[i];
		if (i == 0 || strcmp(finding->where, finding[-1].where))
			fprintf(out, "%s%s\n", i ? "\n" : "", finding->where);
		fprintf(out, "  %s  %-22s %s\n", level_names[finding->level], finding->check,
		    finding->found);
		if (finding->advice[0])
			fprintf(out, "        → %s\n", finding->advice);
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
