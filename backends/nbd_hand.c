/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests from loops that do not have the connections.
 *
 * A donor has several loops and an NBD store one set of connections, which belongs to the loop that used it
 * first.  The others hand their requests to it: each has a mailbox with two lists and two tasks.  Several
 * requests of a round are one message, and so are their answers.  One set is enough: libnbd costs a few
 * microseconds per request where the servers that are known take ten, and blocks that requests cut can be
 * written without locks.
 *
 * A request's way: submit → mail->in → the owner's thread serves it (nbd_req_start) → handed_done →
 * mail->out → the submitting loop completes it.  The outcome travels as the context of a hook.
 *
 * Locking: mail->mu guards the lists and is held for a few instructions; mailboxes are never removed while
 * the store lives.
 */
#include "backends/nbd_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static void push(struct nbd_mail *mail, bool out, struct store_req *req)
{
	pthread_mutex_lock(&mail->mu);
	req->next = NULL;
	if (out) {
		*mail->out_tail = req;
		mail->out_tail = &req->next;
	} else {
		*mail->in_tail = req;
		mail->in_tail = &req->next;
	}
	pthread_mutex_unlock(&mail->mu);
}

static struct store_req *take(struct nbd_mail *mail, bool out)
{
	struct store_req *list;

	pthread_mutex_lock(&mail->mu);
	list = out ? mail->out : mail->in;
	if (out) {
		mail->out = NULL;
		mail->out_tail = &mail->out;
	} else {
		mail->in = NULL;
		mail->in_tail = &mail->in;
	}
	pthread_mutex_unlock(&mail->mu);
	return list;
}

/* On the submitting loop: the last hook. */
static void delivered(struct store_req *req, int err)
{
	store_complete(req, (int)(intptr_t)store_pop(req));
}

static void out_run(struct loop_task *task)
{
	struct nbd_mail *mail =
	    (struct nbd_mail *)((char *)task - offsetof(struct nbd_mail, out_task));
	struct store_req *req = take(mail, true);

	while (req) {
		struct store_req *next = req->next;

		store_complete(req, 0);
		req = next;
	}
}

/* On the owner's loop. */
static void handed_done(struct store_req *req, int err)
{
	struct nbd_mail *mail = store_pop(req);

	store_push(req, delivered, (void *)(intptr_t)err);
	push(mail, true, req);
	loop_post(mail->loop, &mail->out_task);
}

static void in_run(struct loop_task *task)
{
	struct nbd_mail *mail =
	    (struct nbd_mail *)((char *)task - offsetof(struct nbd_mail, in_task));
	struct store_req *req = take(mail, false);

	while (req) {
		struct store_req *next = req->next;

		nbd_req_start(mail->ns, req);
		req = next;
	}
}

/* The calling loop's mailbox; made when it first needs one.  NULL: out of memory. */
static struct nbd_mail *mail_get(struct nbd_store *ns)
{
	struct loop *self = loop_self();
	struct nbd_mail *mail = atomic_load_explicit(&ns->mails, memory_order_acquire);

	while (mail && mail->loop != self)
		mail = mail->next;
	if (mail)
		return mail;
	mail = calloc(1, sizeof(*mail));
	if (!mail)
		return NULL;
	mail->ns = ns;
	mail->loop = self;
	pthread_mutex_init(&mail->mu, NULL);
	mail->in_tail = &mail->in;
	mail->out_tail = &mail->out;
	mail->in_task.run = in_run;
	mail->out_task.run = out_run;
	pthread_mutex_lock(&ns->mu);
	mail->next = atomic_load(&ns->mails);
	atomic_store_explicit(&ns->mails, mail, memory_order_release);
	pthread_mutex_unlock(&ns->mu);
	return mail;
}

void nbd_hand_over(struct nbd_store *ns, struct store_req *req)
{
	struct nbd_mail *mail = mail_get(ns);

	if (!mail) {
		store_complete(req, -ENOMEM);
		return;
	}
	store_push(req, handed_done, mail);
	push(mail, false, req);
	loop_post(atomic_load(&ns->owner), &mail->in_task);
}

void nbd_hand_fini(struct nbd_store *ns)
{
	struct nbd_mail *mail = atomic_load(&ns->mails);

	while (mail) {
		struct nbd_mail *next = mail->next;

		assert(!mail->in && !mail->out);
		pthread_mutex_destroy(&mail->mu);
		free(mail);
		mail = next;
	}
}
