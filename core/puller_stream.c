/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequential readers: who reads in order is about to want what comes next.
 *
 * Each READ either continues a stream (it begins where the stream is expected, or a little further on) or takes
 * the place of the stream that was used least lately.  From its second READ and 64 KiB on a stream has a window
 * ahead of it: as much as it has read already, up to twice what the connection holds.  So a short run costs
 * little, and a long one is soon ahead by a round trip.  READs that come a little out of order (the kernel
 * sends several at once) change nothing.
 */
#include "core/puller_int.h"

#define LEAST_RUN ((uint64_t)64 << 10)
#define LEAST_WINDOW ((uint64_t)256 << 10)
#define MOST_AT_START ((uint64_t)4 << 20)

static bool is_followed(const struct stream *stream)
{
	return stream->reads >= 2 && stream->run >= LEAST_RUN;
}

/* How far ahead of the reader to be. */
static uint64_t window_of(const struct puller *puller, const struct stream *stream)
{
	uint64_t most = 2 * cache_pull_window(puller->cache)->size;
	uint64_t want = stream->run > LEAST_WINDOW ? stream->run : LEAST_WINDOW;

	most = most > MOST_AT_START ? most : MOST_AT_START;
	return want < most ? want : most;
}

static uint64_t target_of(const struct puller *puller, const struct stream *stream)
{
	uint64_t size = cache_size(puller->cache);
	uint64_t target = stream->next + window_of(puller, stream);

	return target < size ? target : size;
}

static struct stream *find(struct puller *puller, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &puller->streams[i];

		if (stream->run && off <= stream->next + 4 * len && off + 4 * len >= stream->next)
			return stream;
	}
	return NULL;
}

static struct stream *oldest(struct puller *puller)
{
	struct stream *stream = &puller->streams[0];

	for (unsigned i = 1; i < STREAMS; i++)
		if (puller->streams[i].used < stream->used)
			stream = &puller->streams[i];
	return stream;
}

void stream_read(void *ctx, uint64_t off, uint64_t len)
{
	struct puller *puller = ctx;
	struct stream *stream;

	if (puller->mode == PULL_NONE || puller->stopped)
		return;
	stream = find(puller, off, len);
	puller->reads++;
	if (!stream) {
		stream = oldest(puller);
		*stream = (struct stream){.next = off + len, .run = len, .reads = 1};
		stream->ahead = stream->next;
		stream->used = puller->reads;
		return;
	}
	stream->used = puller->reads;
	if (off + len <= stream->next)
		return; /* out of order, or read again */
	stream->run += len;
	stream->reads++;
	stream->next = off + len;
	if (stream->ahead < stream->next)
		stream->ahead = stream->next;
	if (is_followed(stream) && stream->ahead < target_of(puller, stream))
		puller_wake(puller);
}

bool stream_pull(struct puller *puller, uint64_t unit)
{
	uint64_t off, len;

	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *stream = &puller->streams[i];
		uint64_t target = target_of(puller, stream), room = target - stream->next;

		if (!is_followed(stream) || target <= stream->next)
			continue;
		/* Whole requests, but not so large that the reader catches up. */
		if (target - stream->ahead > room || target - stream->ahead < unit / 4)
			continue;
		switch (cache_pull(puller->cache, stream->ahead, target - stream->ahead, unit, true,
		    TAG_STREAM, &off, &len)) {
		case CACHE_PULL_STARTED:
			stream->ahead = off + len;
			puller->in_flight += len;
			return true;
		case CACHE_PULL_NOTHING:
			stream->ahead = target;
			break;
		default:
			break;
		}
	}
	return false;
}

unsigned stream_count(const struct puller *puller)
{
	unsigned n = 0;

	for (unsigned i = 0; i < STREAMS; i++)
		n += is_followed(&puller->streams[i]);
	return n;
}
