/* SPDX-License-Identifier: Apache-2.0
 *
 * Names that the makers and the readers of what is set aside agree on: for core/rescue*.c only.
 */
#ifndef REMRAM_CORE_RESCUE_INT_H
#define REMRAM_CORE_RESCUE_INT_H

#define ABOUT "about"
#define ABOUT_HEAD "remram-aside 1\n"
#define DATA "data"
#define SUFFIX_NEW ".new"
#define SUFFIX_DROP ".drop"
#define INDEX_PREFIX "index-"

enum { RESCUE_PATH_LEN = 300 };

#endif
