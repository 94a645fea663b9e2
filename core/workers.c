/* SPDX-License-Identifier: Apache-2.0
 *
 * Worker threads: one queue, first in first out.
 *
 * Locking: `mu` protects the queue; it is never held while work runs.
 */
#include "core/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>

enum { WORKER_STACK = 256 * 1024, WORKERS_MAX = 64 };

struct workers {
	/* Constant after create. */
	unsigned count;
	pthread_t threads[WORKERS_MAX];

	/* Protected by mu. */
	pthread_mutex_t mu;
	pthread_cond_t more;
	struct work *head, **tail;
	bool stopping;
};

static void work_done(struct loop_task *task)
{
	struct work *work = (struct work *)((char *)task - offsetof(struct work, task));

	work->done(work);
}

static void *worker(void *arg)
{
	struct workers *workers = arg;

	pthread_mutex_lock(&workers->mu);
	for (;;) {
		struct work *work = workers->head;

		if (work) {
			bool report = work->done != NULL;

			workers->head = work->next;
			if (!workers->head)
				workers->tail = &workers->head;
			pthread_mutex_unlock(&workers->mu);
			/* Without done, the work may be gone when run returns. */
			work->run(work);
			if (report)
				loop_post(work->loop, &work->task);
			pthread_mutex_lock(&workers->mu);
		} else if (workers->stopping) {
			break;
		} else {
			pthread_cond_wait(&workers->more, &workers->mu);
		}
	}
	pthread_mutex_unlock(&workers->mu);
	return NULL;
}

int workers_create(unsigned threads, struct workers **ret_workers, struct err *err)
{
	struct workers *workers = calloc(1, sizeof(*workers));
	sigset_t all, old;
	pthread_attr_t attr;
	int rc = 0;

	assert(threads >= 1 && threads <= WORKERS_MAX);
	if (!workers)
		return err_set(err, -ENOMEM, "out of memory for worker threads");
	workers->tail = &workers->head;
	pthread_mutex_init(&workers->mu, NULL);
	pthread_cond_init(&workers->more, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (workers->count < threads && rc == 0) {
		rc = pthread_create(&workers->threads[workers->count], &attr, worker, workers);
		if (rc == 0)
			workers->count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc) {
		workers_destroy(workers);
		return err_sys(err, -rc, "cannot start a worker thread");
	}
	*ret_workers = workers;
	return 0;
}

void workers_destroy(struct workers *workers)
{
	if (!workers)
		return;
	pthread_mutex_lock(&workers->mu);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->more);
	pthread_mutex_unlock(&workers->mu);
	for (unsigned i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->more);
	pthread_mutex_destroy(&workers->mu);
	free(workers);
}

void workers_submit(struct workers *workers, struct work *work)
{
	work->next = NULL;
	if (work->done) {
		work->loop = loop_self();
		assert(work->loop);
		work->task.run = work_done;
	}
	pthread_mutex_lock(&workers->mu);
	*workers->tail = work;
	workers->tail = &work->next;
	pthread_cond_signal(&workers->more);
	pthread_mutex_unlock(&workers->mu);
}
