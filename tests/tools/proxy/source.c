/* SPDX-License-Identifier: Apache-2.0
 *
 * What the proxy's loop watches (see tests/tools/proxy/source.h).
 */
#include "tests/tools/proxy/source.h"

#include <err.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/tools/tool.h"

static int epoll_fd;
static bool stopped;

void sources_open(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		err(TOOL_SETUP, "cannot make the loop");
}

void source_watch(struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	int op = !source->added ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

	if (source->fd < 0 || (source->added ? source->watched == events : events == 0))
		return;
	if (epoll_ctl(epoll_fd, op, source->fd, &event) < 0)
		err(TOOL_SETUP, "epoll_ctl");
	source->added = events != 0;
	source->watched = events;
}

void source_close(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
	source->added = false;
}

bool sources_wait(void)
{
	struct epoll_event events[64];
	int count;

	if (stopped)
		return false;
	count = epoll_wait(epoll_fd, events, 64, -1);
	for (int i = 0; i < count; i++) {
		struct source *source = events[i].data.ptr;

		source->ready(source, events[i].events);
	}
	return true;
}

void sources_stop(void)
{
	stopped = true;
}
