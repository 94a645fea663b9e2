/* SPDX-License-Identifier: Apache-2.0
 *
 * memwork: a memory workload that checks every word it ever wrote.  It is what runs on remote swap in
 * the tests, the demo and the benchmark.
 *
 * Phases, each timed, in this order:
 *   fill     writes every 8-byte word, front to back
 *   seq      reads and verifies every word, front to back
 *   random   touches pages in random order and verifies all words of each
 *   rewrite  (each round) gives about a quarter of the pages, in scattered order, a new content
 *   verify   (each round) reads and verifies every word again
 * Result lines on stdout are key=value; the last is wrong_words=N.  The first few wrong words are
 * described on stderr, with a guess where they come from, since that is what tells a lost write from
 * a page that landed in the wrong place.
 *
 * What a word must be follows from (seed, page, generation of the page, place in the page) alone, and a
 * page's generation follows from (seed, round) by hashing: nothing that the checks rely on is kept in
 * memory that could itself be swapped out and come back wrong.
 *
 * Memory: the workload's own mapping is all that grows; the rest is a few KiB of static data.  In a
 * limited cgroup that leaves nothing to tip over.  Everything is printed with one write per line.
 *
 * A wrong word is counted each time that it is seen, so in more than one phase.
 *
 * Fails: wrong words exit 1; SIGBUS (the kernel could not read a page back from swap) says at which
 * offset and exits 4; a run longer than --timeout ends by SIGALRM.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/tools/tool.h"

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, DESCRIBED_MAX = 16 };

struct work {
	/* Constant after start. */
	uint64_t *words; /* the mapping */
	uint64_t page_count;
	uint64_t seed;
	uint64_t random_count;
	uint64_t rounds;
	uint64_t flip_at; /* byte to corrupt after the fill; UINT64_MAX: none */
	bool quiet;
	/* What was found. */
	uint64_t round; /* rewrites done so far */
	uint64_t wrong_words;
	unsigned described;
};

/* For the SIGBUS handler: where the mapping is. */
static struct work work;

static void print_line(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One line, one write; a reader that has gone is not our failure. */
static void print_line(int fd, const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (len > 0 &&
	    write(fd, line, (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1) < 0)
		return;
}

/* True if round `round` (from 1) rewrites page `page`. */
static bool page_is_rewritten(uint64_t seed, uint64_t page, uint64_t round)
{
	return (tool_word(seed ^ 0x726f756e64u, page) + tool_mix(round)) % 4 == 0;
}

/* How often the page's content has been replaced after `rounds` rounds: 0, or the last such round. */
static uint64_t page_generation(uint64_t seed, uint64_t page, uint64_t rounds)
{
	while (rounds > 0 && !page_is_rewritten(seed, page, rounds))
		rounds--;
	return rounds;
}

/* Word w of a page is page_key + w * page_step: cheap enough not to hide the speed of swap, different
 * for each page and generation, and any shift of words inside the page shows. */
static uint64_t page_key(uint64_t seed, uint64_t page, uint64_t generation)
{
	return tool_word(seed ^ tool_mix(generation), page);
}

static const uint64_t page_step = 0x9e3779b97f4a7c15u;

static void page_fill(uint64_t *words, uint64_t key)
{
	for (unsigned w = 0; w < PAGE_WORDS; w++)
		words[w] = key + w * page_step;
}

/* Says what stands there instead: zeros, the page as it once was, another page, or something else. */
static void describe_wrong(struct work *wk, uint64_t page, unsigned w, uint64_t got, uint64_t want)
{
	const char *guess = "unknown bytes";
	uint64_t key = got - w * page_step, found = 0;

	if (got == 0)
		guess = "zeros";
	for (uint64_t g = 0; g < wk->round + 1 && got; g++) {
		if (key == page_key(wk->seed, page, g))
			guess = "an older or newer content of this page";
	}
	for (uint64_t p = 0; p < wk->page_count && !found && strcmp(guess, "unknown bytes") == 0;
	     p++) {
		if (key == page_key(wk->seed, p, page_generation(wk->seed, p, wk->round))) {
			guess = "the content of another page";
			found = 1;
		}
	}
	print_line(STDERR_FILENO,
	    "memwork: wrong word at offset %" PRIu64 " (page %" PRIu64 "): got 0x%016" PRIx64
	    ", want 0x%016" PRIx64 ": %s\n",
	    page * PAGE_BYTES + (uint64_t)w * 8, page, got, want, guess);
}

static void page_verify(struct work *wk, uint64_t page)
{
	const uint64_t *words = wk->words + page * PAGE_WORDS;
	uint64_t key = page_key(wk->seed, page, page_generation(wk->seed, page, wk->round));
	uint64_t diff = 0;

	for (unsigned w = 0; w < PAGE_WORDS; w++)
		diff |= words[w] ^ (key + w * page_step);
	if (diff == 0)
		return;
	for (unsigned w = 0; w < PAGE_WORDS; w++) {
		uint64_t got = words[w], want = key + w * page_step;

		if (got == want)
			continue;
		wk->wrong_words++;
		if (wk->described++ < DESCRIBED_MAX)
			describe_wrong(wk, page, w, got, want);
	}
}

static void report_speed(
    const struct work *wk, const char *phase, uint64_t bytes, uint64_t start_ns)
{
	uint64_t ns = tool_now_ns() - start_ns;

	if (!wk->quiet)
		print_line(STDOUT_FILENO, "%s_mb_s=%.1f\n", phase, tool_mb_s(bytes, ns));
}

static void phase_fill(struct work *wk)
{
	uint64_t start_ns = tool_now_ns();

	for (uint64_t p = 0; p < wk->page_count; p++)
		page_fill(wk->words + p * PAGE_WORDS, page_key(wk->seed, p, 0));
	report_speed(wk, "fill", wk->page_count * PAGE_BYTES, start_ns);
	if (wk->flip_at < wk->page_count * PAGE_BYTES)
		((unsigned char *)wk->words)[wk->flip_at] ^= 0x10;
}

static void phase_verify(struct work *wk, const char *phase)
{
	uint64_t start_ns = tool_now_ns();

	for (uint64_t p = 0; p < wk->page_count; p++)
		page_verify(wk, p);
	report_speed(wk, phase, wk->page_count * PAGE_BYTES, start_ns);
}

static void phase_random(struct work *wk)
{
	uint64_t start_ns = tool_now_ns();

	if (wk->random_count == 0)
		return;
	for (uint64_t i = 0; i < wk->random_count; i++)
		page_verify(wk, tool_word(wk->seed ^ 0x746f756368u, i) % wk->page_count);
	if (!wk->quiet)
		print_line(STDOUT_FILENO, "random_us=%.2f\n",
		    (double)(tool_now_ns() - start_ns) / 1e3 / (double)wk->random_count);
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Visits every page once, in steps of about 0.38 of the whole, so that neighbours are far apart in time. */
static void phase_rewrite(struct work *wk)
{
	uint64_t step = wk->page_count * 3 / 8 + 1, page = 0, count = 0, start_ns = tool_now_ns();

	while (gcd(step, wk->page_count) != 1)
		step++;
	wk->round++;
	for (uint64_t i = 0; i < wk->page_count; i++, page = (page + step) % wk->page_count) {
		if (!page_is_rewritten(wk->seed, page, wk->round))
			continue;
		page_fill(wk->words + page * PAGE_WORDS, page_key(wk->seed, page, wk->round));
		count++;
	}
	report_speed(wk, "rewrite", count * PAGE_BYTES, start_ns);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	print_line(STDERR_FILENO,
	    "memwork: SIGBUS at offset %" PRIu64 ": a page could not be read back\n",
	    (uint64_t)((char *)info->si_addr - (char *)work.words));
	_exit(TOOL_FAULT);
}

static void usage(int fd)
{
	print_line(fd,
	    "usage: memwork [--size BYTES] [--random TOUCHES] [--rounds N] [--seed N] [--quiet]\n"
	    "               [--timeout SECONDS]\n"
	    "               [--flip-at OFFSET]   (corrupts a byte, to test the test)\n");
}

static uint64_t option_number(const char *name, const char *text)
{
	uint64_t value;

	if (!tool_parse(text, &value)) {
		print_line(STDERR_FILENO, "memwork: --%s %s: not a number\n", name, text);
		exit(TOOL_USAGE);
	}
	return value;
}

/* Returns the size in bytes; the rest goes into *wk. */
static uint64_t parse_options(struct work *wk, int argc, char **argv)
{
	static const struct option options[] = {
	    {"size", required_argument, NULL, 's'},
	    {"random", required_argument, NULL, 'r'},
	    {"seed", required_argument, NULL, 'e'},
	    {"rounds", required_argument, NULL, 'n'},
	    {"flip-at", required_argument, NULL, 'f'},
	    {"timeout", required_argument, NULL, 't'},
	    {"quiet", no_argument, NULL, 'q'},
	    {"help", no_argument, NULL, 'h'},
	    {NULL, 0, NULL, 0},
	};
	uint64_t size = 64 << 20;
	int c, idx;

	*wk = (struct work){.seed = 1, .random_count = 10000, .rounds = 1, .flip_at = UINT64_MAX};
	while ((c = getopt_long(argc, argv, "", options, &idx)) != -1) {
		switch (c) {
		case 's':
			size = option_number("size", optarg);
			break;
		case 'r':
			wk->random_count = option_number("random", optarg);
			break;
		case 'e':
			wk->seed = option_number("seed", optarg);
			break;
		case 'n':
			wk->rounds = option_number("rounds", optarg);
			break;
		case 'f':
			wk->flip_at = option_number("flip-at", optarg);
			break;
		case 't':
			alarm((unsigned)option_number("timeout", optarg));
			break;
		case 'q':
			wk->quiet = true;
			break;
		case 'h':
			usage(STDOUT_FILENO);
			exit(TOOL_OK);
		default:
			usage(STDERR_FILENO);
			exit(TOOL_USAGE);
		}
	}
	if (optind < argc || size < PAGE_BYTES || size % PAGE_BYTES != 0) {
		usage(STDERR_FILENO);
		print_line(STDERR_FILENO,
		    "memwork: the size is a multiple of %d, and there are no arguments\n",
		    PAGE_BYTES);
		exit(TOOL_USAGE);
	}
	return size;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	uint64_t size = parse_options(&work, argc, argv);

	sigaction(SIGBUS, &action, NULL);
	work.page_count = size / PAGE_BYTES;
	work.words = mmap(
	    NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (work.words == MAP_FAILED) {
		print_line(STDERR_FILENO, "memwork: cannot map %" PRIu64 " bytes: %s\n", size,
		    strerror(errno));
		return TOOL_SETUP;
	}
	phase_fill(&work);
	phase_verify(&work, "seq");
	phase_random(&work);
	for (uint64_t i = 0; i < work.rounds; i++) {
		phase_rewrite(&work);
		phase_verify(&work, "verify");
	}
	print_line(STDOUT_FILENO, "wrong_words=%" PRIu64 "\n", work.wrong_words);
	return work.wrong_words ? TOOL_FAILED : TOOL_OK;
}
