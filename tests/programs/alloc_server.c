// An HTTP/1.1 server whose heap use is known to the byte.
//
// In:  --port N, and either --threads N (workers that accept and serve one
//      keep-alive connection at a time) or --epoll (one thread that interleaves
//      all connections).
// Out: answers on 127.0.0.1, and `/count`: what it did, by its own count.
//
// Nothing is allocated but what an endpoint says, once the server listens:
//   /alloc/N     malloc(N), free at once
//   /calloc/N    calloc(N, 1), free at once
//   /realloc/N   malloc(N/4), grown to N/2, grown to N, freed: 3 allocs, 3 frees
//   /memalign/N  memalign, aligned_alloc, posix_memalign of N each, freed
//   /failing/N   malloc(N); a realloc, a malloc and a calloc that cannot
//                succeed; free(NULL); free
//   /keep/N      malloc(N), kept for good
//   /next/N      malloc(N) (nothing when N is 0), freed by the next such request
//                of whichever connection
//   /other/N     malloc(N), freed by another thread
//   /later/N     malloc(N), freed 10 ms later, when the response is sent;
//                with --epoll other connections are served meanwhile
//   /upgrade/N   101, then every read of the upgraded connection is echoed
//                around a malloc(N) and a free
// and without any allocation:
//   /status/N    that status   /body/N  N bytes   /chunked/N  N bytes in chunks
//   /count  /quit  and anything else: 404
// Bodies of requests (by length or chunked, with 100-continue) are read and
// forgotten. Deliberately not here: HTTP/2, TLS, robustness beyond a test's.

#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_BYTES 16384
#define OUT_BYTES 16384
#define CONNECTIONS_MAX 4096
#define THREADS_MAX 256
#define HANDOFFS_MAX 65536
#define STATUS_MAX 600
#define LATER_NS 10000000ULL

enum endpoint {
  ALLOC, CALLOC, REALLOC, MEMALIGN, FAILING, KEEP, NEXT, OTHER, LATER, UPGRADE,
  STATUS, BODY, CHUNKED, COUNT, QUIT, UNKNOWN, ENDPOINTS
};
static const char *const names[ENDPOINTS] = {
  "alloc", "calloc", "realloc", "memalign", "failing", "keep", "next", "other", "later", "upgrade",
  "status", "body", "chunked", "count", "quit", "unknown"
};

static _Atomic uint64_t requests[ENDPOINTS], bytes_asked[ENDPOINTS], statuses[STATUS_MAX];
static _Atomic uint64_t bad_heads, accepted, closed, freed_elsewhere, upgraded_reads;
static void *_Atomic held_for_next;
static void *kept; // the newest kept block; each holds the one before it

enum phase { HEAD, BODY_LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS, WAITING, UPGRADED };

struct connection {
  int fd;
  enum phase phase;
  size_t in_bytes;
  char in[IN_BYTES];
  // of the request being read:
  enum endpoint endpoint;
  uint64_t argument, body_left;
  int is_head, keep_alive, is_http10, asked_to_continue;
  // of a /later request:
  void *later_block;
  uint64_t due_ns;
};

static struct connection thread_connections[THREADS_MAX];
static struct connection epoll_connections[CONNECTIONS_MAX];
static int listener = -1;
static pthread_barrier_t all_started;

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static int send_all(int fd, const char *data, size_t bytes) {
  while (bytes > 0) {
    ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent <= 0)
      return -1;
    data += sent;
    bytes -= (size_t)sent;
  }
  return 0;
}

// ---- blocks ---------------------------------------------------------------

// A block nobody touches could be optimised away, or never get a page.
static void *touch(void *block, uint64_t bytes) {
  if (block == NULL)
    return NULL;
  for (uint64_t offset = 0; offset < bytes; offset += 4096)
    ((volatile char *)block)[offset] = 1;
  return block;
}

static pthread_mutex_t handoff_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t handoff_changed = PTHREAD_COND_INITIALIZER;
static void *handoffs[HANDOFFS_MAX];
static uint64_t handed, taken;

static void hand_off(void *block) {
  pthread_mutex_lock(&handoff_lock);
  while (handed - taken == HANDOFFS_MAX)
    pthread_cond_wait(&handoff_changed, &handoff_lock);
  handoffs[handed++ % HANDOFFS_MAX] = block;
  pthread_cond_broadcast(&handoff_changed);
  pthread_mutex_unlock(&handoff_lock);
}

static void *freer_thread(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&handoff_lock);
    while (handed == taken)
      pthread_cond_wait(&handoff_changed, &handoff_lock);
    void *block = handoffs[taken++ % HANDOFFS_MAX];
    pthread_cond_broadcast(&handoff_changed);
    pthread_mutex_unlock(&handoff_lock);
    free(block);
    atomic_fetch_add(&freed_elsewhere, 1);
  }
  return NULL;
}

static pthread_mutex_t keep_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep(uint64_t bytes) {
  void **block = touch(malloc(bytes), bytes);
  if (block == NULL || bytes < sizeof(void *))
    return;
  pthread_mutex_lock(&keep_lock);
  *block = kept;
  kept = block;
  pthread_mutex_unlock(&keep_lock);
}

// What the endpoint allocates, all but /later and /upgrade.
static void use_heap(enum endpoint endpoint, uint64_t bytes) {
  uint64_t asked = bytes;
  void *block;
  switch (endpoint) {
  case ALLOC:
    free(touch(malloc(bytes), bytes));
    break;
  case CALLOC:
    free(touch(calloc(bytes, 1), bytes));
    break;
  case REALLOC:
    block = touch(malloc(bytes / 4), bytes / 4);
    block = touch(realloc(block, bytes / 2), bytes / 2);
    free(touch(realloc(block, bytes), bytes));
    asked = bytes / 4 + bytes / 2 + bytes;
    break;
  case MEMALIGN:
    free(touch(memalign(64, bytes), bytes));
    free(touch(aligned_alloc(256, bytes), bytes));
    if (posix_memalign(&block, 4096, bytes) == 0)
      free(touch(block, bytes));
    asked = 3 * bytes;
    break;
  case FAILING: {
    volatile size_t too_many = SIZE_MAX / 2;
    block = touch(malloc(bytes), bytes);
    if (realloc(block, too_many) != NULL || malloc(too_many) != NULL ||
        calloc(too_many, 4) != NULL)
      abort();
    free(NULL);
    free(block);
    break;
  }
  case KEEP:
    keep(bytes);
    break;
  case NEXT:
    block = bytes == 0 ? NULL : touch(malloc(bytes), bytes);
    free(atomic_exchange(&held_for_next, block));
    break;
  case OTHER:
    hand_off(touch(malloc(bytes), bytes));
    break;
  default: // a /later block outlives this function: see begin_response
    asked = 0;
    break;
  }
  atomic_fetch_add(&bytes_asked[endpoint], asked);
}

// ---- responses --------------------------------------------------------------

static const char *reason_of(uint64_t status) {
  switch (status) {
  case 100: return "Continue";
  case 101: return "Switching Protocols";
  case 200: return "OK";
  case 204: return "No Content";
  case 304: return "Not Modified";
  case 400: return "Bad Request";
  case 404: return "Not Found";
  default: return "Status";
  }
}

// Head and, with `body`, body in one send. `length` is what the head announces;
// -1 announces chunks.
static int respond(struct connection *c, uint64_t status, const char *body, int64_t length) {
  static __thread char out[OUT_BYTES];
  int has_length = status != 204 && status != 304 && status >= 200;
  int used = snprintf(out, sizeof out, "HTTP/1.1 %u %s\r\nServer: alloc_server\r\n",
                      (unsigned)status, reason_of(status));
  if (has_length && length >= 0)
    used += snprintf(out + used, sizeof out - used, "Content-Length: %lld\r\n", (long long)length);
  else if (has_length)
    used += snprintf(out + used, sizeof out - used, "Transfer-Encoding: chunked\r\n");
  if (status == 101)
    used += snprintf(out + used, sizeof out - used, "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n");
  else
    used += snprintf(out + used, sizeof out - used, "Connection: %s\r\n\r\n",
                     c->keep_alive ? "keep-alive" : "close");
  atomic_fetch_add(&statuses[status], 1);
  size_t body_bytes = body == NULL || c->is_head || !has_length ? 0 : (size_t)length;
  if (body_bytes > sizeof out - (size_t)used)
    return -1;
  memcpy(out + used, body == NULL ? "" : body, body_bytes);
  return send_all(c->fd, out, (size_t)used + body_bytes);
}

static char filler[8192];

static int send_filler(int fd, uint64_t bytes) {
  while (bytes > 0) {
    size_t now = bytes < sizeof filler ? (size_t)bytes : sizeof filler;
    if (send_all(fd, filler, now) != 0)
      return -1;
    bytes -= now;
  }
  return 0;
}

static int send_chunks(int fd, uint64_t bytes) {
  char line[32];
  while (bytes > 0) {
    size_t now = bytes < 1000 ? (size_t)bytes : 1000;
    int used = snprintf(line, sizeof line, "%zx\r\n", now);
    if (send_all(fd, line, (size_t)used) != 0 || send_all(fd, filler, now) != 0 ||
        send_all(fd, "\r\n", 2) != 0)
      return -1;
    bytes -= now;
  }
  return send_all(fd, "0\r\n\r\n", 5);
}

static size_t print_numbers(char *out, size_t room, const char *title,
                            _Atomic uint64_t *values) {
  size_t used = (size_t)snprintf(out, room, "\"%s\":{", title);
  for (int e = 0; e < ENDPOINTS; e++)
    used += (size_t)snprintf(out + used, room - used, "%s\"%s\":%llu", e ? "," : "", names[e],
                             (unsigned long long)values[e]);
  return used + (size_t)snprintf(out + used, room - used, "},");
}

static int respond_count(struct connection *c) {
  static __thread char json[8192];
  size_t used = (size_t)snprintf(json, sizeof json, "{");
  used += print_numbers(json + used, sizeof json - used, "requests", requests);
  used += print_numbers(json + used, sizeof json - used, "bytes", bytes_asked);
  used += (size_t)snprintf(json + used, sizeof json - used, "\"status\":{");
  int first = 1;
  for (int s = 0; s < STATUS_MAX; s++)
    if (statuses[s] != 0) {
      used += (size_t)snprintf(json + used, sizeof json - used, "%s\"%d\":%llu",
                               first ? "" : ",", s, (unsigned long long)statuses[s]);
      first = 0;
    }
  pthread_mutex_lock(&handoff_lock);
  uint64_t handed_now = handed;
  pthread_mutex_unlock(&handoff_lock);
  used += (size_t)snprintf(
      json + used, sizeof json - used,
      "},\"bad_heads\":%llu,\"accepted\":%llu,\"closed\":%llu,\"handed\":%llu,"
      "\"freed_elsewhere\":%llu,\"upgraded_reads\":%llu}\n",
      (unsigned long long)bad_heads, (unsigned long long)accepted, (unsigned long long)closed,
      (unsigned long long)handed_now, (unsigned long long)freed_elsewhere,
      (unsigned long long)upgraded_reads);
  return respond(c, 200, json, (int64_t)used);
}

// The request is complete: use the heap as it asks, and answer. Nonzero: close.
static int begin_response(struct connection *c) {
  atomic_fetch_add(&requests[c->endpoint], 1);
  use_heap(c->endpoint, c->argument);
  c->phase = HEAD;
  int failed;
  switch (c->endpoint) {
  case LATER:
    c->later_block = touch(malloc(c->argument), c->argument);
    atomic_fetch_add(&bytes_asked[LATER], c->argument);
    c->due_ns = now_ns() + LATER_NS;
    c->phase = WAITING;
    return 0;
  case UPGRADE:
    failed = respond(c, 101, NULL, 0);
    c->phase = UPGRADED;
    return failed;
  case STATUS:
    failed = respond(c, c->argument, "status\n", 7);
    break;
  case BODY:
    failed = respond(c, 200, NULL, (int64_t)c->argument) ||
             (!c->is_head && send_filler(c->fd, c->argument));
    break;
  case CHUNKED:
    failed = respond(c, 200, NULL, -1) || (!c->is_head && send_chunks(c->fd, c->argument));
    break;
  case COUNT:
    failed = respond_count(c);
    break;
  case QUIT:
    respond(c, 200, "bye\n", 4);
    exit(0);
  case UNKNOWN:
    failed = respond(c, 404, "not here\n", 9);
    break;
  default:
    failed = respond(c, 200, "ok\n", 3);
    break;
  }
  return failed || !c->keep_alive;
}

static int finish_later(struct connection *c) {
  free(c->later_block);
  c->later_block = NULL;
  c->phase = HEAD;
  return respond(c, 200, "ok\n", 3) || !c->keep_alive;
}

// ---- requests ---------------------------------------------------------------

static void consume(struct connection *c, size_t bytes) {
  memmove(c->in, c->in + bytes, c->in_bytes - bytes);
  c->in_bytes -= bytes;
}

static int bad_head(struct connection *c) {
  atomic_fetch_add(&bad_heads, 1);
  c->keep_alive = 0;
  c->is_head = 0;
  respond(c, 400, "bad\n", 4);
  return -1;
}

// The value of a header, or NULL; `head` is NUL-terminated, lines end in CRLF.
static const char *header(const char *head, const char *name) {
  size_t length = strlen(name);
  for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
    line += 2;
    if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
      line += length + 1;
      return line + strspn(line, " \t");
    }
  }
  return NULL;
}

static int value_has(const char *value, const char *word) {
  return value != NULL && strncasecmp(value, word, strlen(word)) == 0;
}

static void find_endpoint(struct connection *c, const char *target) {
  if (strncasecmp(target, "http://", 7) == 0) { // absolute-form
    target = strchr(target + 7, '/');
    if (target == NULL)
      target = "/";
  }
  c->endpoint = UNKNOWN;
  c->argument = 0;
  size_t name_bytes = strcspn(target + 1, "/?");
  for (int e = 0; e < UNKNOWN; e++)
    if (strlen(names[e]) == name_bytes && strncmp(target + 1, names[e], name_bytes) == 0) {
      c->endpoint = (enum endpoint)e;
      if (target[1 + name_bytes] == '/')
        c->argument = strtoull(target + 2 + name_bytes, NULL, 10);
    }
  if (c->endpoint == STATUS && (c->argument < 200 || c->argument >= STATUS_MAX))
    c->endpoint = UNKNOWN;
}

// 0: more bytes are needed. 1: the head is read. -1: close.
static int read_head(struct connection *c) {
  char *end = memmem(c->in, c->in_bytes, "\r\n\r\n", 4);
  if (end == NULL)
    return c->in_bytes == IN_BYTES ? bad_head(c) : 0;
  end[2] = '\0'; // keeps the last header's CRLF
  char method[32], target[8192], version[16];
  if (memchr(c->in, '\0', (size_t)(end - c->in)) != NULL ||
      sscanf(c->in, "%31[A-Z] %8191[^ \r\n] %15[^ \r\n]\r\n", method, target, version) != 3 ||
      strncmp(version, "HTTP/1.", 7) != 0 || (target[0] != '/' && strncasecmp(target, "http://", 7) != 0))
    return bad_head(c);
  const char *connection = header(c->in, "Connection");
  const char *length = header(c->in, "Content-Length");
  c->is_http10 = version[7] == '0';
  c->keep_alive = c->is_http10 ? value_has(connection, "keep-alive") : !value_has(connection, "close");
  c->is_head = strcmp(method, "HEAD") == 0;
  c->asked_to_continue = value_has(header(c->in, "Expect"), "100-continue");
  c->body_left = length == NULL ? 0 : strtoull(length, NULL, 10);
  c->phase = value_has(header(c->in, "Transfer-Encoding"), "chunked") ? CHUNK_SIZE : BODY_LENGTH;
  find_endpoint(c, target);
  consume(c, (size_t)(end - c->in) + 4);
  if (c->asked_to_continue && send_all(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25) != 0)
    return -1;
  return 1;
}

// Takes one whole line of a chunked body: its bytes with CRLF, 0 for not yet.
static size_t line_bytes(const struct connection *c) {
  const char *end = memmem(c->in, c->in_bytes, "\r\n", 2);
  return end == NULL ? 0 : (size_t)(end - c->in) + 2;
}

// Works through what has arrived until more is needed. Nonzero: close.
static int advance(struct connection *c) {
  for (;;) {
    size_t bytes;
    switch (c->phase) {
    case HEAD: {
      if (c->in_bytes == 0)
        return 0;
      int outcome = read_head(c);
      if (outcome <= 0)
        return outcome;
      break;
    }
    case BODY_LENGTH:
      bytes = c->body_left < c->in_bytes ? (size_t)c->body_left : c->in_bytes;
      consume(c, bytes);
      c->body_left -= bytes;
      if (c->body_left > 0)
        return 0;
      if (begin_response(c))
        return -1;
      break;
    case CHUNK_SIZE:
      bytes = line_bytes(c);
      if (bytes == 0)
        return c->in_bytes == IN_BYTES ? bad_head(c) : 0;
      c->body_left = strtoull(c->in, NULL, 16);
      consume(c, bytes);
      c->phase = c->body_left == 0 ? TRAILERS : CHUNK_DATA;
      break;
    case CHUNK_DATA:
      bytes = c->body_left < c->in_bytes ? (size_t)c->body_left : c->in_bytes;
      consume(c, bytes);
      c->body_left -= bytes;
      if (c->body_left > 0)
        return 0;
      c->phase = CHUNK_END;
      break;
    case CHUNK_END:
    case TRAILERS:
      bytes = line_bytes(c);
      if (bytes == 0)
        return c->in_bytes == IN_BYTES ? bad_head(c) : 0;
      consume(c, bytes);
      if (c->phase == CHUNK_END)
        c->phase = CHUNK_SIZE;
      else if (bytes == 2 && begin_response(c))
        return -1;
      break;
    case WAITING:
      return 0;
    case UPGRADED:
      if (c->in_bytes == 0)
        return 0;
      atomic_fetch_add(&upgraded_reads, 1);
      void *block = touch(malloc(c->argument), c->argument);
      int failed = send_all(c->fd, c->in, c->in_bytes);
      free(block);
      c->in_bytes = 0;
      if (failed)
        return -1;
      break;
    }
  }
}

static int read_once(struct connection *c) {
  ssize_t bytes;
  do
    bytes = recv(c->fd, c->in + c->in_bytes, IN_BYTES - c->in_bytes, 0);
  while (bytes < 0 && errno == EINTR);
  if (bytes <= 0)
    return -1;
  c->in_bytes += (size_t)bytes;
  return advance(c);
}

static void open_connection(struct connection *c, int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c->fd = fd;
  c->phase = HEAD;
  c->in_bytes = 0;
  c->later_block = NULL;
  atomic_fetch_add(&accepted, 1);
}

static void close_connection(struct connection *c) {
  free(c->later_block);
  c->later_block = NULL;
  close(c->fd);
  c->fd = -1;
  atomic_fetch_add(&closed, 1);
}

// ---- the two ways to serve ----------------------------------------------------

static void *worker_thread(void *argument) {
  struct connection *c = argument;
  pthread_barrier_wait(&all_started);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
      continue;
    open_connection(c, fd);
    int failed = 0;
    while (!failed) {
      failed = read_once(c);
      while (!failed && c->phase == WAITING) {
        usleep(LATER_NS / 1000);
        failed = finish_later(c) || advance(c);
      }
    }
    close_connection(c);
  }
  return NULL;
}

static void watch(int epoll, int operation, struct connection *c, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll, operation, c == NULL ? listener : c->fd, &event) != 0) {
    perror("alloc_server: epoll_ctl");
    exit(1);
  }
}

static void accept_one(int epoll) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0)
    return;
  for (size_t i = 0; i < CONNECTIONS_MAX; i++)
    if (epoll_connections[i].fd < 0) {
      open_connection(&epoll_connections[i], fd);
      watch(epoll, EPOLL_CTL_ADD, &epoll_connections[i], EPOLLIN);
      return;
    }
  close(fd);
}

// Answers the /later requests that are due; the milliseconds until the next, or -1.
static int serve_waiting(int epoll, size_t *waiting) {
  uint64_t now = now_ns(), next = UINT64_MAX;
  if (*waiting == 0)
    return -1;
  for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
    struct connection *c = &epoll_connections[i];
    if (c->fd < 0 || c->phase != WAITING)
      continue;
    if (c->due_ns > now) {
      next = c->due_ns < next ? c->due_ns : next;
      continue;
    }
    *waiting -= 1;
    if (finish_later(c) || advance(c)) {
      close_connection(c);
    } else if (c->phase == WAITING) {
      *waiting += 1;
      next = c->due_ns < next ? c->due_ns : next;
    } else {
      watch(epoll, EPOLL_CTL_MOD, c, EPOLLIN);
    }
  }
  return next == UINT64_MAX ? -1 : (int)((next - now) / 1000000) + 1;
}

static void serve_with_epoll(void) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  size_t waiting = 0;
  for (size_t i = 0; i < CONNECTIONS_MAX; i++)
    epoll_connections[i].fd = -1;
  watch(epoll, EPOLL_CTL_ADD, NULL, EPOLLIN);
  for (;;) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, 64, serve_waiting(epoll, &waiting));
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c == NULL) {
        accept_one(epoll);
      } else if (read_once(c)) {
        close_connection(c);
      } else if (c->phase == WAITING) {
        waiting++;
        watch(epoll, EPOLL_CTL_MOD, c, 0); // not read again until answered
      }
    }
  }
}

static void listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
      listen(listener, 4096) != 0) {
    perror("alloc_server: listen");
    exit(1);
  }
}

int main(int count, char **arguments) {
  int port = 0, threads = 4, epoll = 0;
  for (int i = 1; i < count; i++) {
    if (strcmp(arguments[i], "--epoll") == 0)
      epoll = 1;
    else if (strcmp(arguments[i], "--port") == 0 && i + 1 < count)
      port = atoi(arguments[++i]);
    else if (strcmp(arguments[i], "--threads") == 0 && i + 1 < count)
      threads = atoi(arguments[++i]);
    else
      port = -1;
  }
  if (port <= 0 || threads < 1 || threads > THREADS_MAX) {
    fprintf(stderr, "usage: alloc_server --port N [--threads N | --epoll]\n");
    return 2;
  }
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  signal(SIGPIPE, SIG_IGN);
  memset(filler, 'x', sizeof filler);
  pthread_t thread;
  if (pthread_create(&thread, NULL, freer_thread, NULL) != 0)
    return 1;
  if (epoll) {
    listen_on(port);
    serve_with_epoll();
  }
  // All threads run, with all they allocate to start, before anyone can connect.
  pthread_barrier_init(&all_started, NULL, (unsigned)threads + 1);
  for (int i = 0; i < threads; i++)
    if (pthread_create(&thread, NULL, worker_thread, &thread_connections[i]) != 0)
      return 1;
  listen_on(port);
  pthread_barrier_wait(&all_started);
  pthread_join(thread, NULL);
  return 0;
}
