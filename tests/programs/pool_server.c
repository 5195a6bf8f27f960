// An HTTP/1.1 server whose work changes threads, and whose heap use is known to
// the byte.
//
// In:  --port N --workers N
//      --queue condition|event|pipe|pair  how work reaches the workers: a list
//                  with a condition variable; a list with a counting event
//                  descriptor; messages through a pipe; messages through a pair
//                  of sockets
//      --reader poller|worker   who receives the request
//      --writer worker|poller   who sends the response; the poller is told
//                  through an event descriptor, a pipe or a pair, as the queue is
// Out: answers on 127.0.0.1, and `/count`: what it did, by its own count.
//
// One thread accepts, one polls, the others do the work. Nothing is allocated
// but what an endpoint says, by a worker, once the server listens:
//   /alloc/N    malloc(N), free at once
//   /keep/N     malloc(N), kept for good
//   /next/N     malloc(N), freed by the next such request, whoever serves it
//   /other/N    malloc(N), freed by another thread
//   /locked/N   malloc(N) and free while a lock is held, a binary semaphore for
//               which all such requests compete
//   /count, and anything else: 404
// Requests have no bodies and come one at a time on each connection.
// Deliberately not here: robustness beyond a test's.

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_BYTES 4096
#define OUT_BYTES 4096
#define CONNECTIONS_MAX 4096
#define WORKERS_MAX 256
#define HANDOFFS_MAX 65536
#define LOCKED_ROUNDS 20000

enum endpoint { ALLOC, KEEP, NEXT, OTHER, LOCKED, COUNT, UNKNOWN, ENDPOINTS };
static const char *const names[ENDPOINTS] = {
  "alloc", "keep", "next", "other", "locked", "count", "unknown"
};
enum queue { CONDITION, EVENT, PIPE, PAIR };
static const char *const queues[] = {"condition", "event", "pipe", "pair"};

struct connection {
  int fd;
  int keep_alive;
  size_t in_bytes;
  char in[IN_BYTES];
  enum endpoint endpoint;
  uint64_t argument;
};

static struct connection connections[CONNECTIONS_MAX];
static enum queue queue_kind;
static int worker_reads, poller_writes;
static int listener = -1, poll_fd = -1;
static _Atomic uint64_t requests[ENDPOINTS], bytes_asked[ENDPOINTS];
static void *_Atomic held_for_next;
static void *_Atomic kept;

static void die(const char *what) {
  perror(what);
  exit(1);
}

// ---- queues of connections --------------------------------------------------

// A list with its lock. It holds each connection once, so it never overflows.
struct list {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int ids[CONNECTIONS_MAX];
  uint64_t added, taken;
};
// `ends[0]` is read, `ends[1]` is written; the same for an event descriptor.
struct channel {
  struct list list;
  int ends[2];
};
static struct channel to_workers, to_poller;

static void open_channel(struct channel *channel, int is_semaphore, int is_blocking) {
  int flags = is_blocking ? 0 : EFD_NONBLOCK;
  pthread_mutex_init(&channel->list.lock, NULL);
  pthread_cond_init(&channel->list.changed, NULL);
  channel->ends[0] = channel->ends[1] = -1;
  if (queue_kind == PIPE && pipe2(channel->ends, flags) != 0)
    die("pipe2");
  if (queue_kind == PAIR &&
      socketpair(AF_UNIX, SOCK_STREAM | (is_blocking ? 0 : SOCK_NONBLOCK), 0, channel->ends) != 0)
    die("socketpair");
  if (queue_kind == EVENT || (queue_kind == CONDITION && !is_blocking)) {
    channel->ends[0] = eventfd(0, flags | (is_semaphore ? EFD_SEMAPHORE : 0));
    channel->ends[1] = channel->ends[0];
    if (channel->ends[0] < 0)
      die("eventfd");
  }
}

static void put(struct channel *channel, int id) {
  struct list *list = &channel->list;
  if (queue_kind == PIPE || queue_kind == PAIR) {
    if (write(channel->ends[1], &id, sizeof id) != sizeof id)
      die("write to a queue");
    return;
  }
  pthread_mutex_lock(&list->lock);
  list->ids[list->added++ % CONNECTIONS_MAX] = id;
  if (channel->ends[1] < 0)
    pthread_cond_signal(&list->changed);
  pthread_mutex_unlock(&list->lock);
  uint64_t one = 1;
  if (channel->ends[1] >= 0 && write(channel->ends[1], &one, sizeof one) != sizeof one)
    die("write to an event");
}

static int take_from_list(struct list *list) {
  pthread_mutex_lock(&list->lock);
  int id = list->added == list->taken ? -1 : list->ids[list->taken++ % CONNECTIONS_MAX];
  pthread_mutex_unlock(&list->lock);
  return id;
}

// Waits for work.
static int take_work(void) {
  struct list *list = &to_workers.list;
  int id;
  uint64_t count;
  switch (queue_kind) {
  case CONDITION:
    pthread_mutex_lock(&list->lock);
    while (list->added == list->taken)
      pthread_cond_wait(&list->changed, &list->lock);
    id = list->ids[list->taken++ % CONNECTIONS_MAX];
    pthread_mutex_unlock(&list->lock);
    return id;
  case EVENT:
    if (read(to_workers.ends[0], &count, sizeof count) != sizeof count)
      die("read of an event");
    return take_from_list(list);
  default:
    if (read(to_workers.ends[0], &id, sizeof id) != sizeof id)
      die("read of a queue");
    return id;
  }
}

// ---- blocks -------------------------------------------------------------------

// A block nobody touches could be optimised away, or never get a page.
static void *touch(void *block, uint64_t bytes) {
  if (block == NULL)
    abort();
  for (uint64_t offset = 0; offset < bytes; offset += 4096)
    ((volatile char *)block)[offset] = 1;
  return block;
}

static sem_t handed_off, binary;
static pthread_mutex_t handoff_lock = PTHREAD_MUTEX_INITIALIZER;
static void *handoffs[HANDOFFS_MAX];
static uint64_t handed, freed;

static void hand_off(void *block) {
  pthread_mutex_lock(&handoff_lock);
  if (handed - freed == HANDOFFS_MAX)
    abort();
  handoffs[handed++ % HANDOFFS_MAX] = block;
  pthread_mutex_unlock(&handoff_lock);
  sem_post(&handed_off);
}

static void *freer_thread(void *unused) {
  (void)unused;
  for (;;) {
    while (sem_wait(&handed_off) != 0)
      continue;
    pthread_mutex_lock(&handoff_lock);
    void *block = handoffs[freed++ % HANDOFFS_MAX];
    pthread_mutex_unlock(&handoff_lock);
    free(block);
  }
  return NULL;
}

static void use_heap(enum endpoint endpoint, uint64_t bytes) {
  switch (endpoint) {
  case ALLOC:
    free(touch(malloc(bytes), bytes));
    break;
  case KEEP: {
    void *_Atomic *block = touch(malloc(bytes), bytes);
    *block = atomic_exchange(&kept, (void *)block);
    break;
  }
  case NEXT:
    free(atomic_exchange(&held_for_next, touch(malloc(bytes), bytes)));
    break;
  case OTHER:
    hand_off(touch(malloc(bytes), bytes));
    break;
  case LOCKED:
    while (sem_wait(&binary) != 0)
      continue;
    void *block = touch(malloc(bytes), bytes);
    for (volatile int round = 0; round < LOCKED_ROUNDS; round++)
      continue;
    free(block);
    sem_post(&binary);
    break;
  default:
    return;
  }
  atomic_fetch_add(&bytes_asked[endpoint], bytes);
}

// ---- requests and responses -----------------------------------------------------

static void poll_for(int id, int operation) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = (uint32_t)id};
  if (epoll_ctl(poll_fd, operation, connections[id].fd, &event) != 0)
    die("epoll_ctl");
}

static void hang_up(struct connection *c) {
  int fd = c->fd;
  c->fd = -1; // before the number can be given to another connection
  close(fd);
}

// What is there of the request. 1: it is whole; 0: more is to come; -1: the end.
static int receive(struct connection *c) {
  for (;;) {
    ssize_t got = recv(c->fd, c->in + c->in_bytes, sizeof c->in - 1 - c->in_bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0 && errno == EAGAIN)
      return 0;
    if (got <= 0)
      return -1;
    c->in_bytes += (size_t)got;
    c->in[c->in_bytes] = 0;
    if (strstr(c->in, "\r\n\r\n") != NULL)
      break;
  }
  char name[32] = "";
  unsigned long long argument = 0;
  sscanf(c->in, "GET /%31[a-z]/%llu", name, &argument);
  c->endpoint = UNKNOWN;
  for (int e = 0; e < UNKNOWN; e++)
    if (strcmp(name, names[e]) == 0)
      c->endpoint = (enum endpoint)e;
  c->argument = argument;
  c->keep_alive = strcasestr(c->in, "\r\nconnection: close") == NULL;
  c->in_bytes = 0;
  atomic_fetch_add(&requests[c->endpoint], 1);
  return 1;
}

static size_t print_numbers(char *out, size_t room, const char *title, _Atomic uint64_t *values) {
  size_t used = (size_t)snprintf(out, room, "\"%s\":{", title);
  for (int e = 0; e < ENDPOINTS; e++)
    used += (size_t)snprintf(out + used, room - used, "%s\"%s\":%llu", e ? "," : "", names[e],
                             (unsigned long long)values[e]);
  return used + (size_t)snprintf(out + used, room - used, "}");
}

static void respond(struct connection *c) {
  char out[OUT_BYTES], body[OUT_BYTES / 2] = "done\n";
  if (c->endpoint == COUNT) {
    size_t used = (size_t)snprintf(body, sizeof body, "{");
    used += print_numbers(body + used, sizeof body - used, "requests", requests);
    used += (size_t)snprintf(body + used, sizeof body - used, ",");
    used += print_numbers(body + used, sizeof body - used, "bytes", bytes_asked);
    snprintf(body + used, sizeof body - used, "}\n");
  }
  int bytes = snprintf(out, sizeof out, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s",
                       c->endpoint == UNKNOWN ? "404 Not Found" : "200 OK", strlen(body), body);
  int keep_alive = c->keep_alive;
  if (send(c->fd, out, (size_t)bytes, MSG_NOSIGNAL) != bytes || !keep_alive)
    hang_up(c);
  else
    poll_for((int)(c - connections), EPOLL_CTL_MOD);
}

// ---- threads --------------------------------------------------------------------

static void *worker_thread(void *unused) {
  (void)unused;
  for (;;) {
    int id = take_work();
    struct connection *c = &connections[id];
    if (worker_reads) {
      int state = receive(c);
      if (state < 0)
        hang_up(c);
      if (state == 0)
        poll_for(id, EPOLL_CTL_MOD);
      if (state <= 0)
        continue;
    }
    use_heap(c->endpoint, c->argument);
    if (poller_writes)
      put(&to_poller, id);
    else
      respond(c);
  }
  return NULL;
}

static void write_what_is_done(void) {
  int ids[64];
  ssize_t got;
  uint64_t count;
  if (queue_kind == PIPE || queue_kind == PAIR) {
    while ((got = read(to_poller.ends[0], ids, sizeof ids)) > 0)
      for (size_t i = 0; i < (size_t)got / sizeof *ids; i++)
        respond(&connections[ids[i]]);
    return;
  }
  if (read(to_poller.ends[0], &count, sizeof count) == sizeof count)
    for (int id; (id = take_from_list(&to_poller.list)) >= 0;)
      respond(&connections[id]);
}

static void *poller_thread(void *unused) {
  (void)unused;
  struct epoll_event events[64];
  for (;;) {
    int ready = epoll_wait(poll_fd, events, 64, -1);
    for (int i = 0; i < ready; i++) {
      uint32_t id = events[i].data.u32;
      if (id == UINT32_MAX) {
        write_what_is_done();
        continue;
      }
      struct connection *c = &connections[id];
      int state = worker_reads ? 1 : receive(c);
      if (state < 0)
        hang_up(c);
      else if (state == 0)
        poll_for((int)id, EPOLL_CTL_MOD);
      else
        put(&to_workers, (int)id);
    }
  }
  return NULL;
}

static void accept_all(void) {
  for (int id = 0;; id = (id + 1) % CONNECTIONS_MAX) {
    if (connections[id].fd >= 0)
      continue;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED)
        continue;
      die("accept4");
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections[id].in_bytes = 0;
    connections[id].fd = fd;
    poll_for(id, EPOLL_CTL_ADD);
  }
}

static void start(void *(*run)(void *)) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, NULL) != 0)
    die("pthread_create");
}

static void usage(void) {
  fprintf(stderr, "usage: pool_server --port N --workers N --queue condition|event|pipe|pair "
                  "--reader poller|worker --writer worker|poller\n");
  exit(2);
}

int main(int argc, char **argv) {
  int port = 0, workers = 0, has_queue = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *value = argv[i + 1];
    if (strcmp(argv[i], "--port") == 0)
      port = atoi(value);
    else if (strcmp(argv[i], "--workers") == 0)
      workers = atoi(value);
    else if (strcmp(argv[i], "--queue") == 0)
      for (int kind = CONDITION; kind <= PAIR; kind++) {
        if (strcmp(value, queues[kind]) == 0) {
          queue_kind = (enum queue)kind;
          has_queue = 1;
        }
      }
    else if (strcmp(argv[i], "--reader") == 0)
      worker_reads = strcmp(value, "worker") == 0;
    else if (strcmp(argv[i], "--writer") == 0)
      poller_writes = strcmp(value, "poller") == 0;
    else
      usage();
  }
  if (port <= 0 || workers <= 0 || workers > WORKERS_MAX || !has_queue)
    usage();
  signal(SIGPIPE, SIG_IGN);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  for (int id = 0; id < CONNECTIONS_MAX; id++)
    connections[id].fd = -1;
  sem_init(&handed_off, 0, 0);
  sem_init(&binary, 0, 1);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
    die("bind");
  poll_fd = epoll_create1(EPOLL_CLOEXEC);
  open_channel(&to_workers, 1, 1);
  open_channel(&to_poller, 0, 0);
  struct epoll_event told = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
  if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, to_poller.ends[0], &told) != 0)
    die("epoll_ctl");
  start(freer_thread);
  for (int i = 0; i < workers; i++)
    start(worker_thread);
  start(poller_thread);
  if (listen(listener, 4096) != 0)
    die("listen");
  accept_all();
}
