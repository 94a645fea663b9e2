/* SPDX-License-Identifier: Apache-2.0
 *
 * fileop: opens one file and does operations on the open descriptor, byte-exact and with named errors:
 * what shell tests can't do with dd and stat.
 *
 *   fileop [OPTIONS] FILE OP [ARG…] [, OP [ARG…]]…
 *   fileop [OPTIONS] FILE -            operations from stdin, one a line, each answered "ok" or by its
 *                                      error: for tests that need the file to stay open
 *
 * `expect ERRNO OP …` succeeds if the operation fails with that error (EFBIG, ENOSPC, …, or SIGBUS for a
 * mapping).  Contents are patterns: the byte at file offset x is byte x of the sequence that SEED names,
 * so any range can be written and verified without the rest, whatever else stands in the file.
 *
 * State: one descriptor, at most one mapping; operations run one after another, and the first that fails
 * ends a command-line run (a stdin run goes on).  Numbers take K M G T and 0x.
 *
 * Fails: exit 1 for a failed operation or wrong data (the first wrong byte is described on stderr), 3 if
 * the file can't be opened; the error's name is in the message.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/tools/tool.h"

enum {
	ARGS_MAX = 8, /* words of one operation, its name included */
	DATA_WRONG =
	    1, /* an op's result: the data is not what it must be, and that has been said */
	SIGNAL_BUS = -4096, /* an op's result: SIGBUS; below any -errno */
	XATTR_MAX = 65536,
};

struct file {
	const char *path;
	int fd;
	unsigned char *buf; /* page-aligned, for O_DIRECT */
	size_t buf_len;
	unsigned char *map; /* NULL: none */
	uint64_t map_off, map_len;
};

/* n: the numbers among the arguments, in order; words: all arguments. */
typedef int op_fn(struct file *file, const uint64_t *n, char **words);

static sigjmp_buf on_bus_jump;
static volatile sig_atomic_t bus_armed;

/* ---- reading and writing ---- */

static int pwrite_all(struct file *file, const unsigned char *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t put = pwrite(file->fd, buf, len, (off_t)off);

		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		buf += put;
		len -= (size_t)put;
		off += (uint64_t)put;
	}
	return 0;
}

/* Reports wrong data at file offset off. */
static int wrong_data(const struct file *file, uint64_t wrong, uint64_t off, uint64_t got)
{
	fprintf(stderr,
	    "fileop: %s: %" PRIu64 " wrong bytes, the first at offset %" PRIu64 " (0x%02" PRIx64
	    ")\n",
	    file->path, wrong, off, got);
	return DATA_WRONG;
}

static int op_write(struct file *file, const uint64_t *n, char **words)
{
	int error = 0;

	for (uint64_t done = 0; done < n[1] && !error;) {
		size_t len = n[1] - done < file->buf_len ? (size_t)(n[1] - done) : file->buf_len;

		tool_pattern(n[2], n[0] + done, file->buf, len);
		error = pwrite_all(file, file->buf, len, n[0] + done);
		done += len;
	}
	return error;
}

static int op_append(struct file *file, const uint64_t *n, char **words)
{
	struct stat st;
	ssize_t put;

	if (n[0] > file->buf_len)
		return -EMSGSIZE;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	tool_pattern(n[1], (uint64_t)st.st_size, file->buf, (size_t)n[0]);
	put = write(file->fd, file->buf, (size_t)n[0]);
	if (put < 0)
		return -errno;
	return (uint64_t)put == n[0] ? 0 : -EIO;
}

/* Reads [n[0], n[0]+n[1]) and compares; seed NULL: it must be zeros. */
static int verify(struct file *file, const uint64_t *n, const uint64_t *seed)
{
	for (uint64_t done = 0; done < n[1];) {
		size_t len = n[1] - done < file->buf_len ? (size_t)(n[1] - done) : file->buf_len;
		ssize_t got = pread(file->fd, file->buf, len, (off_t)(n[0] + done));
		uint64_t wrong = 0;
		size_t first = 0;

		if (got < 0)
			return -errno;
		if (got == 0) {
			fprintf(stderr, "fileop: %s: ends at offset %" PRIu64 "\n", file->path,
			    n[0] + done);
			return DATA_WRONG;
		}
		if (seed)
			wrong =
			    tool_pattern_wrong(*seed, n[0] + done, file->buf, (size_t)got, &first);
		for (ssize_t i = got; !seed && i-- > 0;) {
			if (file->buf[i]) {
				wrong++;
				first = (size_t)i;
			}
		}
		if (wrong)
			return wrong_data(file, wrong, n[0] + done + first, file->buf[first]);
		done += (uint64_t)got;
	}
	return 0;
}

static int op_verify(struct file *file, const uint64_t *n, char **words)
{
	return verify(file, n, &n[2]);
}

static int op_zeros(struct file *file, const uint64_t *n, char **words)
{
	return verify(file, n, NULL);
}

static int op_read(struct file *file, const uint64_t *n, char **words)
{
	size_t len = n[1] < file->buf_len ? (size_t)n[1] : file->buf_len;
	ssize_t got = pread(file->fd, file->buf, len, (off_t)n[0]);

	if (got < 0)
		return -errno;
	printf("bytes=%zd\n", got);
	return 0;
}

/* ---- size, allocation, attributes ---- */

static int op_size(struct file *file, const uint64_t *n, char **words)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	printf("size=%lld allocated=%lld mode=%o nlink=%lu\n", (long long)st.st_size,
	    (long long)st.st_blocks * 512, st.st_mode & 07777, (unsigned long)st.st_nlink);
	return 0;
}

static int op_truncate(struct file *file, const uint64_t *n, char **words)
{
	return ftruncate(file->fd, (off_t)n[0]) < 0 ? -errno : 0;
}

static int op_fallocate(struct file *file, const uint64_t *n, char **words)
{
	static const struct {
		const char *name;
		int mode;
	} modes[] = {
	    {"reserve", 0},
	    {"reserve-keep", FALLOC_FL_KEEP_SIZE},
	    {"punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
	    {"zero", FALLOC_FL_ZERO_RANGE},
	    {"zero-keep", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
	    {"collapse", FALLOC_FL_COLLAPSE_RANGE},
	    {"insert", FALLOC_FL_INSERT_RANGE},
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(words[0], modes[i].name) == 0)
			return fallocate(file->fd, modes[i].mode, (off_t)n[0], (off_t)n[1]) < 0
				   ? -errno
				   : 0;
	}
	fprintf(stderr, "fileop: fallocate %s: no such mode\n", words[0]);
	return -EINVAL;
}

/* One line per extent: "data START END" or "hole START END". */
static int op_extents(struct file *file, const uint64_t *n, char **words)
{
	off_t end = lseek(file->fd, 0, SEEK_END), pos = 0;

	if (end < 0)
		return -errno;
	while (pos < end) {
		off_t data = lseek(file->fd, pos, SEEK_DATA), hole;

		if (data < 0 && errno != ENXIO)
			return -errno;
		if (data < 0)
			data = end;
		if (data > pos)
			printf("hole %lld %lld\n", (long long)pos, (long long)data);
		if (data == end)
			break;
		hole = lseek(file->fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		printf("data %lld %lld\n", (long long)data, (long long)hole);
		pos = hole;
	}
	return 0;
}

static int op_seek(struct file *file, const uint64_t *n, char **words)
{
	off_t found =
	    lseek(file->fd, (off_t)n[0], strcmp(words[0], "data") == 0 ? SEEK_DATA : SEEK_HOLE);

	if (found < 0)
		return -errno;
	printf("offset=%lld\n", (long long)found);
	return 0;
}

static int op_setxattr(struct file *file, const uint64_t *n, char **words)
{
	return fsetxattr(file->fd, words[0], words[1], strlen(words[1]), 0) < 0 ? -errno : 0;
}

static int op_getxattr(struct file *file, const uint64_t *n, char **words)
{
	static char value[XATTR_MAX];
	ssize_t len = fgetxattr(file->fd, words[0], value, sizeof(value));

	if (len < 0)
		return -errno;
	printf("%.*s\n", (int)len, value);
	return 0;
}

static int op_listxattr(struct file *file, const uint64_t *n, char **words)
{
	static char names[XATTR_MAX];
	ssize_t len = flistxattr(file->fd, names, sizeof(names));

	if (len < 0)
		return -errno;
	for (ssize_t i = 0; i < len; i += (ssize_t)strlen(names + i) + 1)
		printf("%s\n", names + i);
	return 0;
}

static int op_removexattr(struct file *file, const uint64_t *n, char **words)
{
	return fremovexattr(file->fd, words[0]) < 0 ? -errno : 0;
}

static int op_fsync(struct file *file, const uint64_t *n, char **words)
{
	return fsync(file->fd) < 0 ? -errno : 0;
}

static int op_fdatasync(struct file *file, const uint64_t *n, char **words)
{
	return fdatasync(file->fd) < 0 ? -errno : 0;
}

/* Drops the file's clean pages from the page cache. */
static int op_drop(struct file *file, const uint64_t *n, char **words)
{
	return -posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int op_sleep(struct file *file, const uint64_t *n, char **words)
{
	struct timespec ts = {
	    .tv_sec = (time_t)(n[0] / 1000), .tv_nsec = (long)(n[0] % 1000 * 1000000)};

	return nanosleep(&ts, NULL) < 0 ? -errno : 0;
}

/* ---- mappings ---- */

static int op_unmap(struct file *file, const uint64_t *n, char **words)
{
	if (!file->map)
		return -EINVAL;
	if (munmap(file->map, file->map_len) < 0)
		return -errno;
	file->map = NULL;
	return 0;
}

static int op_map(struct file *file, const uint64_t *n, char **words)
{
	int flags = strcmp(words[0], "private") == 0 ? MAP_PRIVATE : MAP_SHARED;
	int prot = strcmp(words[1], "r") == 0 ? PROT_READ : PROT_READ | PROT_WRITE;
	void *map = mmap(NULL, n[1], prot, flags, file->fd, (off_t)n[0]);

	if (map == MAP_FAILED)
		return -errno;
	if (file->map)
		munmap(file->map, file->map_len);
	file->map = map;
	file->map_off = n[0];
	file->map_len = n[1];
	return 0;
}

/* The mapped bytes for file range [off, off+len), or NULL if they are not all mapped. */
static unsigned char *mapped(const struct file *file, uint64_t off, uint64_t len)
{
	if (!file->map || off < file->map_off || len > file->map_len ||
	    off - file->map_off > file->map_len - len) {
		fprintf(stderr, "fileop: %s: that range is not mapped\n", file->path);
		return NULL;
	}
	return file->map + (off - file->map_off);
}

static int op_map_write(struct file *file, const uint64_t *n, char **words)
{
	unsigned char *mem = mapped(file, n[0], n[1]);

	if (!mem)
		return -ERANGE;
	tool_pattern(n[2], n[0], mem, n[1]);
	return 0;
}

static int op_map_verify(struct file *file, const uint64_t *n, char **words)
{
	unsigned char *mem = mapped(file, n[0], n[1]);
	uint64_t wrong;
	size_t first;

	if (!mem)
		return -ERANGE;
	wrong = tool_pattern_wrong(n[2], n[0], mem, n[1], &first);
	return wrong ? wrong_data(file, wrong, n[0] + first, mem[first]) : 0;
}

static int op_map_zeros(struct file *file, const uint64_t *n, char **words)
{
	unsigned char *mem = mapped(file, n[0], n[1]);

	if (!mem)
		return -ERANGE;
	for (uint64_t i = 0; i < n[1]; i++) {
		if (mem[i])
			return wrong_data(file, 1, n[0] + i, mem[i]);
	}
	return 0;
}

/* Reads one byte of each page, front to back, and says how fast that went. */
static int op_map_touch(struct file *file, const uint64_t *n, char **words)
{
	const volatile unsigned char *mem = mapped(file, n[0], n[1]);
	uint64_t start_ns = tool_now_ns(), page = (uint64_t)sysconf(_SC_PAGESIZE), sum = 0;

	if (!mem)
		return -ERANGE;
	for (uint64_t i = 0; i < n[1]; i += page)
		sum += mem[i];
	printf("mb_s=%.1f sum=%" PRIu64 "\n", tool_mb_s(n[1], tool_now_ns() - start_ns), sum);
	return 0;
}

static int op_map_sync(struct file *file, const uint64_t *n, char **words)
{
	if (!file->map)
		return -EINVAL;
	return msync(file->map, file->map_len, MS_SYNC) < 0 ? -errno : 0;
}

/* ---- the table, and running it ---- */

/* args: a letter per argument: n a number, w a word. */
static const struct op {
	const char *name, *args, *help;
	op_fn *run;
} ops[] = {
    {"write", "nnn", "OFF LEN SEED: write the pattern", op_write},
    {"verify", "nnn", "OFF LEN SEED: read it back and compare", op_verify},
    {"zeros", "nn", "OFF LEN: read; all must be zero", op_zeros},
    {"append", "nn", "LEN SEED: one write(2) at the end (open with --append)", op_append},
    {"read", "nn", "OFF LEN: one pread(2); prints bytes=", op_read},
    {"size", "", "prints size=, allocated=, mode=, nlink=", op_size},
    {"truncate", "n", "SIZE", op_truncate},
    {"fallocate", "wnn", "reserve|reserve-keep|punch|zero|zero-keep|collapse|insert OFF LEN",
	op_fallocate},
    {"extents", "", "prints data and hole ranges (SEEK_DATA, SEEK_HOLE)", op_extents},
    {"seek", "wn", "data|hole OFF: prints offset=", op_seek},
    {"setxattr", "ww", "NAME VALUE", op_setxattr},
    {"getxattr", "w", "NAME: prints the value", op_getxattr},
    {"listxattr", "", "prints the names", op_listxattr},
    {"removexattr", "w", "NAME", op_removexattr},
    {"fsync", "", "", op_fsync},
    {"fdatasync", "", "", op_fdatasync},
    {"drop", "", "drop clean pages of the file from the page cache", op_drop},
    {"sleep", "n", "MS", op_sleep},
    {"map", "nnww", "OFF LEN shared|private r|rw: replaces an earlier mapping", op_map},
    {"map-write", "nnn", "OFF LEN SEED (file offsets)", op_map_write},
    {"map-verify", "nnn", "OFF LEN SEED", op_map_verify},
    {"map-zeros", "nn", "OFF LEN", op_map_zeros},
    {"map-touch", "nn", "OFF LEN: a byte of each page in order; prints mb_s=", op_map_touch},
    {"map-sync", "", "msync(2)", op_map_sync},
    {"unmap", "", "", op_unmap},
};

static void usage(FILE *out)
{
	fputs("usage: fileop [OPTIONS] FILE OP [ARG...] [, OP [ARG...]]...\n"
	      "       fileop [OPTIONS] FILE -      (operations from stdin, a line each)\n"
	      "options: --read | --write-only (default: read and write), --create[=MODE], --excl,\n"
	      "         --trunc, --append, --direct, --sync, --bs BYTES (default 1M)\n"
	      "operations, each may stand behind `expect ERRNO`:\n",
	    out);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		fprintf(out, "  %-12s %s\n", ops[i].name, ops[i].help);
}

static void on_bus(int sig)
{
	if (bus_armed)
		siglongjmp(on_bus_jump, 1);
	signal(SIGBUS, SIG_DFL);
	raise(SIGBUS);
}

/* Runs an operation; SIGBUS in it becomes SIGNAL_BUS. */
static int op_guarded(const struct op *op, struct file *file, const uint64_t *n, char **words)
{
	volatile int result = SIGNAL_BUS;

	if (sigsetjmp(on_bus_jump, 1) == 0) {
		bus_armed = 1;
		result = op->run(file, n, words);
	}
	bus_armed = 0;
	return result;
}

static const char *result_name(int result)
{
	const char *name = result < 0 && result != SIGNAL_BUS ? strerrorname_np(-result) : NULL;

	return result == 0            ? "success"
	       : result == DATA_WRONG ? "wrong data"
	       : result == SIGNAL_BUS ? "SIGBUS"
	       : name                 ? name
				      : "unknown error";
}

/* Runs words[0..count): TOOL_OK, TOOL_FAILED or TOOL_USAGE, with a message. */
static int run_words(struct file *file, char **words, int count)
{
	const char *expected = NULL;
	const struct op *op = NULL;
	uint64_t numbers[ARGS_MAX];
	char *texts[ARGS_MAX];
	unsigned number_count = 0, text_count = 0;
	int result;

	if (count > 2 && strcmp(words[0], "expect") == 0) {
		expected = words[1];
		words += 2;
		count -= 2;
	}
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]) && count > 0; i++) {
		if (strcmp(ops[i].name, words[0]) == 0)
			op = &ops[i];
	}
	if (!op || (size_t)count != strlen(op->args) + 1) {
		fprintf(stderr, "fileop: %s: %s %s\n", count > 0 ? words[0] : "",
		    op ? "wants" : "no such operation", op ? op->help : "");
		return TOOL_USAGE;
	}
	for (int i = 1; i < count; i++) {
		if (op->args[i - 1] == 'w') {
			texts[text_count++] = words[i];
		} else if (!tool_parse(words[i], &numbers[number_count++])) {
			fprintf(stderr, "fileop: %s %s: not a number\n", op->name, words[i]);
			return TOOL_USAGE;
		}
	}
	result = op_guarded(op, file, numbers, texts);
	fflush(stdout);
	if (strcmp(result_name(result), expected ? expected : "success") == 0)
		return TOOL_OK;
	fprintf(stderr, "fileop: %s: %s: %s%s%s\n", file->path, op->name, result_name(result),
	    expected ? ", expected " : "", expected ? expected : "");
	return TOOL_FAILED;
}

/* Operations from argv, separated by ",". */
static int run_arguments(struct file *file, char **argv, int count)
{
	int result = TOOL_OK;

	for (int start = 0, i = 0; i <= count && result == TOOL_OK; i++) {
		if (i < count && strcmp(argv[i], ",") != 0)
			continue;
		result = run_words(file, argv + start, i - start);
		start = i + 1;
	}
	return result;
}

static int run_stdin(struct file *file)
{
	char line[1024], *words[ARGS_MAX + 3];
	int worst = TOOL_OK;

	while (fgets(line, sizeof(line), stdin)) {
		int count = 0, result;
		char *save = NULL;

		for (char *word = strtok_r(line, " \t\n", &save); word && count < ARGS_MAX + 3;
		     word = strtok_r(NULL, " \t\n", &save))
			words[count++] = word;
		if (count == 0)
			continue;
		result = run_words(file, words, count);
		puts(result == TOOL_OK ? "ok" : "failed");
		fflush(stdout);
		worst = result > worst ? result : worst;
	}
	return worst;
}

struct options {
	int flags;
	mode_t mode;
	uint64_t block;
};

static struct options parse_options(int argc, char **argv)
{
	static const struct option options[] = {
	    {"read", no_argument, NULL, 'r'},
	    {"write-only", no_argument, NULL, 'w'},
	    {"create", optional_argument, NULL, 'c'},
	    {"excl", no_argument, NULL, 'x'},
	    {"trunc", no_argument, NULL, 't'},
	    {"append", no_argument, NULL, 'a'},
	    {"direct", no_argument, NULL, 'd'},
	    {"sync", no_argument, NULL, 's'},
	    {"bs", required_argument, NULL, 'b'},
	    {"help", no_argument, NULL, 'h'},
	    {NULL, 0, NULL, 0},
	};
	struct options set = {.flags = O_CLOEXEC, .mode = 0600, .block = 1 << 20};
	int c, access_mode = O_RDWR;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (c == 'h') {
			usage(stdout);
			exit(TOOL_OK);
		}
		if (c == '?' || (c == 'b' && (!tool_parse(optarg, &set.block) || !set.block))) {
			usage(stderr);
			exit(TOOL_USAGE);
		}
		if (c == 'r' || c == 'w')
			access_mode = c == 'r' ? O_RDONLY : O_WRONLY;
		if (c == 'c' && optarg)
			set.mode = (mode_t)strtoul(optarg, NULL, 8);
		set.flags |= c == 'c'   ? O_CREAT
			     : c == 'x' ? O_EXCL
			     : c == 't' ? O_TRUNC
			     : c == 'a' ? O_APPEND
			     : c == 'd' ? O_DIRECT
			     : c == 's' ? O_SYNC
					: 0;
	}
	set.flags |= access_mode;
	return set;
}

int main(int argc, char **argv)
{
	struct options set = parse_options(argc, argv);
	struct file file = {.buf_len = (size_t)set.block};
	struct sigaction action = {.sa_handler = on_bus};
	int result;

	if (argc - optind < 2) {
		usage(stderr);
		return TOOL_USAGE;
	}
	file.path = argv[optind];
	file.buf =
	    mmap(NULL, file.buf_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (file.buf == MAP_FAILED) {
		perror("fileop: memory");
		return TOOL_SETUP;
	}
	file.fd = open(file.path, set.flags, set.mode);
	if (file.fd < 0) {
		fprintf(stderr, "fileop: %s: open: %s\n", file.path, strerrorname_np(errno));
		return TOOL_SETUP;
	}
	sigaction(SIGBUS, &action, NULL);
	if (strcmp(argv[optind + 1], "-") == 0)
		result = run_stdin(&file);
	else
		result = run_arguments(&file, argv + optind + 1, argc - optind - 1);
	if (close(file.fd) < 0 && result == TOOL_OK) {
		fprintf(stderr, "fileop: %s: close: %s\n", file.path, strerrorname_np(errno));
		result = TOOL_FAILED;
	}
	return result;
}
