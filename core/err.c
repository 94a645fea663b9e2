/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills a struct err.  A text that does not fit is cut; nothing here can fail.
 */
#include "core/err.h"

#include <stdio.h>
#include <string.h>

#undef err_set /* what the header tells the analyzer */
#undef err_sys

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		size_t n;
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		n = strlen(err->text);
		snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror(-code));
	}
	return code;
}
