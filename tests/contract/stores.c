/* SPDX-License-Identifier: Apache-2.0
 *
 * Every store keeps the contract of core/store.h.
 */
#include <stdlib.h>

#include "tests/lib/contract.h"

int main(void)
{
	SRunner *runner = srunner_create(contract_suite("stores", contract_factories));
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
