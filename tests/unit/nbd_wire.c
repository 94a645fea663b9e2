/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of the NBD protocol: decoders take what is right and refuse what is not, at every length;
 * encoders make what the specification says; which requests may be carried out.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export/nbd_wire.h"
#include "tests/unit/hex.h"

START_TEST(numbers)
{
	uint8_t buf[8];

	nbd_put16(buf, 0x1234);
	ck_assert_mem_eq(buf, "\x12\x34", 2);
	ck_assert_uint_eq(nbd_get16(buf), 0x1234);
	nbd_put32(buf, 0x12345678);
	ck_assert_mem_eq(buf, "\x12\x34\x56\x78", 4);
	ck_assert_uint_eq(nbd_get32(buf), 0x12345678);
	nbd_put64(buf, 0x123456789abcdef0);
	ck_assert_mem_eq(buf, "\x12\x34\x56\x78\x9a\xbc\xde\xf0", 8);
	ck_assert_uint_eq(nbd_get64(buf), 0x123456789abcdef0);
}
END_TEST

START_TEST(options)
{
	uint8_t buf[NBD_OPTION_LEN] = "IHAVEOPT\0\0\0\7\0\0\1\2";
	uint32_t option = 0, len = 0;

	ck_assert_int_eq(nbd_wire_option(buf, &option, &len), 0);
	ck_assert_uint_eq(option, NBD_O_GO);
	ck_assert_uint_eq(len, 0x102);
	for (unsigned i = 0; i < 8; i++) {
		buf[i] ^= 1;
		ck_assert_int_eq(nbd_wire_option(buf, &option, &len), -EPROTO);
		buf[i] ^= 1;
	}
}
END_TEST

/* An exact copy of the first len bytes: a read beyond it is seen by the sanitizers. */
static int go_cut(const uint8_t *data, size_t len, struct nbd_go *ret_go)
{
	uint8_t *copy = malloc(len ? len : 1);
	int rc;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, len);
	rc = nbd_wire_go(copy, len, ret_go);
	free(copy);
	return rc;
}

START_TEST(go_data)
{
	static const uint8_t data[] = "\0\0\0\5ram/w\0\2\0\3\0\1";
	const size_t len = sizeof(data) - 1;
	struct nbd_go go;

	ck_assert_int_eq(nbd_wire_go(data, len, &go), 0);
	ck_assert_uint_eq(go.name.len, 5);
	ck_assert_mem_eq(go.name.bytes, "ram/w", 5);
	ck_assert(go.want_block_size && go.want_name && !go.want_description);
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(go_cut(data, cut, &go), -EINVAL);
	ck_assert_int_eq(nbd_wire_go((const uint8_t *)"\0\0\0\0\0\0", 6, &go), 0);
	ck_assert_uint_eq(go.name.len, 0);
	ck_assert(!go.want_block_size && !go.want_name && !go.want_description);
	ck_assert_int_eq(nbd_wire_go((const uint8_t *)"\0\0\0\0\0\0x", 7, &go), -EINVAL);
	ck_assert_int_eq(nbd_wire_go((const uint8_t *)"\xff\xff\xff\xff\0\0", 6, &go), -EINVAL);
}
END_TEST

START_TEST(long_names)
{
	uint8_t *data = calloc(1, NBD_NAME_MAX + 16);
	struct nbd_go go;

	ck_assert_ptr_nonnull(data);
	nbd_put32(data, NBD_NAME_MAX);
	ck_assert_int_eq(nbd_wire_go(data, 4 + NBD_NAME_MAX + 2, &go), 0);
	nbd_put32(data, NBD_NAME_MAX + 1);
	ck_assert_int_eq(nbd_wire_go(data, 4 + NBD_NAME_MAX + 1 + 2, &go), -ENAMETOOLONG);
	free(data);
}
END_TEST

START_TEST(meta_data)
{
	static const uint8_t data[] = "\0\0\0\1x\0\0\0\2\0\0\0\5base:\0\0\0\0";
	const size_t len = sizeof(data) - 1;
	struct nbd_meta meta;

	ck_assert_int_eq(nbd_wire_meta(data, len, &meta), 0);
	ck_assert_uint_eq(meta.count, 2);
	ck_assert_uint_eq(meta.kept, 2);
	ck_assert_mem_eq(meta.queries[0].bytes, "base:", 5);
	ck_assert_uint_eq(meta.queries[1].len, 0);
	for (size_t cut = 0; cut < len; cut++)
		ck_assert_int_eq(nbd_wire_meta(data, cut, &meta), -EINVAL);
	/* A count that nothing stands behind does not take long. */
	ck_assert_int_eq(
	    nbd_wire_meta((const uint8_t *)"\0\0\0\0\xff\xff\xff\xff", 8, &meta), -EINVAL);
}
END_TEST

START_TEST(many_queries)
{
	uint8_t data[8 + 4 * 100] = {0};
	struct nbd_meta meta;

	nbd_put32(data + 4, 100);
	ck_assert_int_eq(nbd_wire_meta(data, sizeof(data), &meta), 0);
	ck_assert_uint_eq(meta.count, 100);
	ck_assert_uint_eq(meta.kept, NBD_QUERIES_MAX);
}
END_TEST

START_TEST(requests)
{
	static const char compact[] =
	    "25609513 0001 0001 1122334455667788 0000000000001000 00000200";
	static const char extended[] =
	    "21e41c71 0020 0001 1122334455667788 0000000000001000 0000000100000000";
	uint8_t buf[NBD_EXT_REQUEST_LEN];
	struct nbd_request r;

	ck_assert_uint_eq(hex_bytes(compact, buf, sizeof(buf)), NBD_REQUEST_LEN);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_SIMPLE, &r), 0);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_STRUCTURED, &r), 0);
	ck_assert_uint_eq(r.flags, NBD_F_FUA);
	ck_assert_uint_eq(r.type, NBD_C_WRITE);
	ck_assert_uint_eq(r.cookie, 0x1122334455667788);
	ck_assert_uint_eq(r.off, 4096);
	ck_assert_uint_eq(r.len, 512);
	ck_assert_uint_eq(r.payload, 512);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_EXTENDED, &r), -EPROTO);
	ck_assert_uint_eq(hex_bytes(extended, buf, sizeof(buf)), NBD_EXT_REQUEST_LEN);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_EXTENDED, &r), 0);
	ck_assert_uint_eq(r.len, 1ull << 32);
	ck_assert_uint_eq(r.payload, 1ull << 32);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_SIMPLE, &r), -EPROTO);
	nbd_put16(buf + 6, NBD_C_READ);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_EXTENDED, &r), 0);
	ck_assert_uint_eq(r.payload, 1ull << 32);
	nbd_put16(buf + 4, 0);
	ck_assert_int_eq(nbd_wire_request(buf, NBD_EXTENDED, &r), 0);
	ck_assert_uint_eq(r.payload, 0);
}
END_TEST

/* What a request is answered with on an export of 1 MiB. */
static const struct verdict {
	struct nbd_request request;
	enum nbd_mode mode;
	bool read_only;
	uint32_t error;
} verdicts[] = {
    {{.type = NBD_C_READ, .off = 0, .len = 1 << 20}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_READ, .off = 1, .len = 1 << 20}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_READ, .off = UINT64_MAX, .len = 2}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_READ, .off = 1 << 20, .len = 0}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_READ, .len = 1, .flags = NBD_F_FUA}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_READ, .len = 1, .flags = NBD_F_DF}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_READ, .len = 1, .flags = NBD_F_DF}, NBD_STRUCTURED, false, 0},
    {{.type = NBD_C_READ, .len = 1, .flags = NBD_F_NO_HOLE}, NBD_STRUCTURED, false, NBD_EINVAL},
    {{.type = NBD_C_READ, .len = 1, .flags = 1 << 9}, NBD_STRUCTURED, false, NBD_EINVAL},
    {{.type = NBD_C_READ, .len = 1, .flags = NBD_F_PAYLOAD_LEN}, NBD_EXTENDED, false, NBD_EINVAL},
    {{.type = NBD_C_WRITE, .len = 1}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_WRITE, .len = 1}, NBD_SIMPLE, true, NBD_EPERM},
    {{.type = NBD_C_WRITE, .off = 1 << 20, .len = 1}, NBD_SIMPLE, true, NBD_EPERM},
    {{.type = NBD_C_WRITE, .off = 1 << 20, .len = 1}, NBD_SIMPLE, false, NBD_ENOSPC},
    {{.type = NBD_C_WRITE, .len = 1, .flags = NBD_F_PAYLOAD_LEN}, NBD_EXTENDED, false, 0},
    {{.type = NBD_C_WRITE, .len = 1, .flags = NBD_F_PAYLOAD_LEN}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_FLUSH}, NBD_SIMPLE, true, 0},
    {{.type = NBD_C_FLUSH, .off = 1}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_FLUSH, .len = 1}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_TRIM, .len = 1 << 20, .flags = NBD_F_FUA}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_TRIM, .off = 1, .len = 1 << 20}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_TRIM, .len = 1}, NBD_SIMPLE, true, NBD_EPERM},
    {{.type = NBD_C_CACHE, .len = 1 << 20}, NBD_SIMPLE, true, 0},
    {{.type = NBD_C_CACHE, .off = 1, .len = 1 << 20}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_WRITE_ZEROES, .len = 1 << 20, .flags = NBD_F_FUA | NBD_F_NO_HOLE}, NBD_SIMPLE,
	false, 0},
    {{.type = NBD_C_WRITE_ZEROES, .len = 1, .flags = NBD_F_FAST_ZERO}, NBD_SIMPLE, false, 0},
    {{.type = NBD_C_WRITE_ZEROES, .off = 1, .len = 1 << 20}, NBD_SIMPLE, false, NBD_ENOSPC},
    {{.type = NBD_C_WRITE_ZEROES, .len = 1}, NBD_SIMPLE, true, NBD_EPERM},
    {{.type = NBD_C_BLOCK_STATUS, .len = 1}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = NBD_C_BLOCK_STATUS, .len = 1, .flags = NBD_F_REQ_ONE}, NBD_STRUCTURED, false, 0},
    {{.type = NBD_C_BLOCK_STATUS, .len = 0}, NBD_STRUCTURED, false, NBD_EINVAL},
    {{.type = NBD_C_BLOCK_STATUS, .off = 1, .len = 1 << 20}, NBD_STRUCTURED, false, NBD_EINVAL},
    {{.type = NBD_C_BLOCK_STATUS, .len = UINT32_MAX}, NBD_STRUCTURED, false, NBD_EINVAL},
    {{.type = 8, .len = 1}, NBD_SIMPLE, false, NBD_EINVAL},
    {{.type = UINT16_MAX}, NBD_EXTENDED, false, NBD_EINVAL},
};

START_TEST(checks)
{
	const struct verdict *v = &verdicts[_i];

	ck_assert_uint_eq(nbd_wire_check(&v->request, v->mode, 1 << 20, v->read_only), v->error);
}
END_TEST

/* Lengths beyond what a READ or WRITE may have, on an export that is large enough. */
START_TEST(long_requests)
{
	struct nbd_request r = {.type = NBD_C_READ, .len = 32 << 20};

	ck_assert_uint_eq(nbd_wire_check(&r, NBD_EXTENDED, 1ull << 40, false), 0);
	r.len++;
	ck_assert_uint_eq(nbd_wire_check(&r, NBD_EXTENDED, 1ull << 40, false), NBD_EINVAL);
	r.type = NBD_C_WRITE_ZEROES;
	r.len = 1ull << 39;
	ck_assert_uint_eq(nbd_wire_check(&r, NBD_EXTENDED, 1ull << 40, false), 0);
}
END_TEST

START_TEST(replies)
{
	const struct nbd_request r = {.cookie = 0x1122334455667788, .off = 0x1000};
	uint8_t buf[64];
	size_t len;

	len = (size_t)(nbd_wire_simple(buf, NBD_ENOSPC, r.cookie) - buf);
	hex_expect("simple", buf, len, "67446698 0000001c 1122334455667788");
	len = (size_t)(nbd_wire_data(buf, NBD_STRUCTURED, &r, NBD_CHUNK_DONE, 0x2000, 512) - buf);
	hex_expect(
	    "data", buf, len, "668e33ef 0001 0001 1122334455667788 00000208 0000000000002000");
	len = (size_t)(nbd_wire_hole(buf, NBD_EXTENDED, &r, 0, 0x2000, 512) - buf);
	hex_expect("hole", buf, len,
	    "6e8a278c 0000 0002 1122334455667788 0000000000001000 000000000000000c "
	    "0000000000002000 00000200");
	len = (size_t)(nbd_wire_error(buf, NBD_STRUCTURED, &r, NBD_CHUNK_DONE, NBD_EIO) - buf);
	hex_expect("error", buf, len, "668e33ef 0001 8001 1122334455667788 00000006 00000005 0000");
	len = (size_t)(nbd_wire_reply(buf, NBD_O_LIST, NBD_R_ERR_UNSUP, 7) - buf);
	hex_expect("option", buf, len, "0003e889045565a9 00000003 80000001 00000007");
}
END_TEST

START_TEST(errors)
{
	static const struct {
		int err;
		uint32_t error;
	} map[] = {{0, 0}, {-EPERM, 1}, {-EACCES, 1}, {-EROFS, 1}, {-EIO, 5}, {-ENOMEM, 12},
	    {-EINVAL, 22}, {-ENOSPC, 28}, {-EDQUOT, 28}, {-EFBIG, 28}, {-EOVERFLOW, 75},
	    {-ENOTSUP, 95}, {-ESHUTDOWN, 108}, {-ESTALE, 5}, {-ENXIO, 5}};

	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		ck_assert_uint_eq(nbd_wire_errno(map[i].err), map[i].error);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nbd_wire");
	TCase *tc = tcase_create("bytes");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, numbers);
	tcase_add_test(tc, options);
	tcase_add_test(tc, go_data);
	tcase_add_test(tc, long_names);
	tcase_add_test(tc, meta_data);
	tcase_add_test(tc, many_queries);
	tcase_add_test(tc, requests);
	tcase_add_loop_test(tc, checks, 0, (int)(sizeof(verdicts) / sizeof(verdicts[0])));
	tcase_add_test(tc, long_requests);
	tcase_add_test(tc, replies);
	tcase_add_test(tc, errors);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
