// The traced server of the kernel boot tests: HTTP/1.1 with keep-alive on a
// fixed pool of threads, which counts every allocation it makes.
//
// In: a port number, and optionally `threads` (default 8): one thread serves
// one connection at a time, so no more than `threads` clients at once.
// Out: one line `ready` once every thread has started; after SIGUSR1, as soon
// as no connection is open, one line of JSON with its own counters.
// Endpoints: /alloc/<bytes>, /keep/<bytes>, /swap/<bytes>; anything else 404.
//
// It allocates through the counting functions below and in no other way once
// `ready` is printed: no stdio, no thread started, no resolver. So an observer
// of the process from `ready` on has to arrive at exactly these numbers. It
// counts like this: a successful realloc is a free of the old block and an
// allocation of the new size; a failed one and free(NULL) are nothing.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { THREADS_MAX = 64, HEAD_BYTES_MAX = 4096, BLOCK_BYTES_MIN = 64, BLOCK_BYTES_MAX = 1 << 20 };

enum endpoint { ALLOC, KEEP, SWAP, CONNECTION, ENDPOINTS };
static const char *const endpoint_names[ENDPOINTS] = {"alloc", "keep", "swap", "connection"};

// Allocations are counted for the request (or connection) that made them,
// frees for the one that had made the allocation.
struct counters {
    atomic_ulong requests, alloc_count, alloc_bytes, free_count, free_bytes;
};
static struct counters counters[ENDPOINTS];

static void count_alloc(enum endpoint of, size_t bytes) {
    counters[of].alloc_count++;
    counters[of].alloc_bytes += bytes;
}

static void count_free(enum endpoint of, size_t bytes) {
    counters[of].free_count++;
    counters[of].free_bytes += bytes;
}

static void *checked(void *block) {
    if (block == NULL) {
        static const char message[] = "guest_server: out of memory\n";
        (void)!write(STDERR_FILENO, message, sizeof message - 1);
        _exit(1);
    }
    return block;
}

static void *counted_malloc(enum endpoint of, size_t bytes) {
    void *block = checked(malloc(bytes));
    count_alloc(of, bytes);
    return block;
}

static void counted_free(enum endpoint of, void *block, size_t bytes) {
    free(block);
    count_free(of, bytes);
}

// Every entry point of the allocator, nested forms included: glibc's
// realloc(NULL, n), reallocarray and small alignments go through another
// entry point inside, and must still count once.
static void endpoint_alloc(size_t bytes) {
    char *first = counted_malloc(ALLOC, bytes);
    first[0] = 1;

    char *zeroed = checked(calloc(3, bytes));
    count_alloc(ALLOC, 3 * bytes);

    first = checked(realloc(first, 2 * bytes));
    count_free(ALLOC, bytes);
    count_alloc(ALLOC, 2 * bytes);

    volatile size_t impossible = SIZE_MAX / 2;
    if (realloc(first, impossible) != NULL)
        _exit(1);

    char *grown = checked(realloc(NULL, bytes));
    count_alloc(ALLOC, bytes);
    grown = checked(reallocarray(grown, 2, bytes));
    count_free(ALLOC, bytes);
    count_alloc(ALLOC, 2 * bytes);

    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, bytes) != 0)
        checked(NULL);
    count_alloc(ALLOC, bytes);

    size_t rounded = (bytes + 15) & ~(size_t)15;
    char *small_aligned = checked(aligned_alloc(16, rounded));
    count_alloc(ALLOC, rounded);

    free(NULL);
    counted_free(ALLOC, first, 2 * bytes);
    counted_free(ALLOC, zeroed, 3 * bytes);
    counted_free(ALLOC, grown, 2 * bytes);
    counted_free(ALLOC, aligned, bytes);
    counted_free(ALLOC, small_aligned, rounded);
}

struct block {
    struct block *next;
    size_t bytes;
};

// Kept for good: the list only grows.
static void endpoint_keep(size_t bytes) {
    static _Atomic(struct block *) kept;
    struct block *block = counted_malloc(KEEP, bytes);
    block->bytes = bytes;
    block->next = atomic_load(&kept);
    while (!atomic_compare_exchange_weak(&kept, &block->next, block))
        continue;
}

// Frees the block of the previous such request, often another thread's.
static void endpoint_swap(size_t bytes) {
    static _Atomic(struct block *) parked;
    struct block *block = counted_malloc(SWAP, bytes);
    block->bytes = bytes;
    struct block *previous = atomic_exchange(&parked, block);
    if (previous != NULL)
        counted_free(SWAP, previous, previous->bytes);
}

// Connections being served, so that the counters are printed only when the
// last one is closed and its buffer freed.
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t open_changed = PTHREAD_COND_INITIALIZER;
static unsigned long connections_open, connections_accepted;

// The system calls differ by thread, so that one run covers the usual forms.
enum calls { READ_WRITE, RECV_SEND, RECVMSG_WRITEV, CALLS };

static ssize_t receive(enum calls calls, int fd, char *buffer, size_t room) {
    struct iovec part = {.iov_base = buffer, .iov_len = room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    switch (calls) {
    case READ_WRITE:
        return read(fd, buffer, room);
    case RECV_SEND:
        return recv(fd, buffer, room, 0);
    case RECVMSG_WRITEV:
    case CALLS:
        return recvmsg(fd, &message, 0);
    }
    return -1;
}

static int respond(enum calls calls, int fd, const char *status, const char *body, int close_after) {
    char text[256];
    int head = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status,
                        strlen(body), close_after ? "Connection: close\r\n" : "");
    int all = head + snprintf(text + head, sizeof text - (size_t)head, "%s", body);
    struct iovec parts[2] = {{.iov_base = text, .iov_len = (size_t)head},
                             {.iov_base = text + head, .iov_len = (size_t)(all - head)}};
    ssize_t sent = -1;
    switch (calls) {
    case READ_WRITE:
        sent = write(fd, text, (size_t)all);
        break;
    case RECV_SEND:
        sent = send(fd, text, (size_t)all, MSG_NOSIGNAL);
        break;
    case RECVMSG_WRITEV:
    case CALLS:
        sent = writev(fd, parts, 2);
        break;
    }
    return sent == all ? 0 : -1;
}

static const char *handle(const char *head) {
    static const struct {
        const char *prefix;
        enum endpoint endpoint;
        void (*work)(size_t bytes);
    } endpoints[] = {{"GET /alloc/", ALLOC, endpoint_alloc},
                     {"GET /keep/", KEEP, endpoint_keep},
                     {"GET /swap/", SWAP, endpoint_swap}};
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        size_t prefix = strlen(endpoints[i].prefix);
        if (strncmp(head, endpoints[i].prefix, prefix) != 0)
            continue;
        unsigned long bytes = strtoul(head + prefix, NULL, 10);
        if (bytes < BLOCK_BYTES_MIN || bytes > BLOCK_BYTES_MAX)
            return "400 Bad Request";
        endpoints[i].work(bytes);
        counters[endpoints[i].endpoint].requests++;
        return "200 OK";
    }
    return "404 Not Found";
}

static void serve(enum calls calls, int fd) {
    char *buffer = counted_malloc(CONNECTION, HEAD_BYTES_MAX);
    size_t filled = 0;
    int open = 1;
    while (open) {
        char *end;
        buffer[filled] = '\0';
        while ((end = strstr(buffer, "\r\n\r\n")) == NULL) {
            ssize_t got = filled < HEAD_BYTES_MAX - 1
                              ? receive(calls, fd, buffer + filled, HEAD_BYTES_MAX - 1 - filled)
                              : 0;
            if (got <= 0)
                break;
            filled += (size_t)got;
            buffer[filled] = '\0';
        }
        if (end == NULL)
            break;
        *end = '\0';
        int close_after = strstr(buffer, "\r\nConnection: close") != NULL;
        const char *status = handle(buffer);
        open = respond(calls, fd, status, "done\n", close_after) == 0 && !close_after;
        size_t used = (size_t)(end + 4 - buffer);
        memmove(buffer, buffer + used, filled - used);
        filled -= used;
    }
    counted_free(CONNECTION, buffer, HEAD_BYTES_MAX);
    close(fd);
}

static int listener;
static pthread_barrier_t all_started;

static void *serve_connections(void *index) {
    enum calls calls = (enum calls)((uintptr_t)index % CALLS);
    pthread_barrier_wait(&all_started);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        pthread_mutex_lock(&open_lock);
        connections_open++;
        connections_accepted++;
        pthread_mutex_unlock(&open_lock);
        serve(calls, fd);
        pthread_mutex_lock(&open_lock);
        connections_open--;
        pthread_cond_signal(&open_changed);
        pthread_mutex_unlock(&open_lock);
    }
    return NULL;
}

// One JSON object per line; formatting numbers does not allocate.
static void print_counters(void) {
    char text[2048];
    size_t length = (size_t)snprintf(text, sizeof text, "{\"connections\":%lu,\"endpoints\":{",
                                     connections_accepted);
    for (int i = 0; i < ENDPOINTS; i++) {
        struct counters *of = &counters[i];
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "%s\"%s\":{\"requests\":%lu,\"alloc_count\":%lu,\"alloc_bytes\":%lu,"
                                   "\"free_count\":%lu,\"free_bytes\":%lu}",
                                   i == 0 ? "" : ",", endpoint_names[i], of->requests, of->alloc_count,
                                   of->alloc_bytes, of->free_count, of->free_bytes);
    }
    length += (size_t)snprintf(text + length, sizeof text - length, "}}\n");
    (void)!write(STDOUT_FILENO, text, length);
}

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: guest_server PORT [THREADS]\n");
        return 2;
    }
    int threads = argc > 2 ? atoi(argv[2]) : 8;
    if (threads < 1 || threads > THREADS_MAX)
        threads = THREADS_MAX;
    // Blocked before any thread exists, so that only sigwait() below sees it.
    sigset_t print_request;
    sigemptyset(&print_request);
    sigaddset(&print_request, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &print_request, NULL);
    signal(SIGPIPE, SIG_IGN);

    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return fail("guest_server: socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
        return fail("guest_server: bind");
    if (listen(listener, 128) != 0)
        return fail("guest_server: listen");

    pthread_barrier_init(&all_started, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve_connections, (void *)(uintptr_t)i) != 0)
            return fail("guest_server: pthread_create");
    }
    pthread_barrier_wait(&all_started);
    (void)!write(STDOUT_FILENO, "ready\n", 6);

    for (;;) {
        int signal_number;
        if (sigwait(&print_request, &signal_number) != 0)
            continue;
        pthread_mutex_lock(&open_lock);
        while (connections_open > 0)
            pthread_cond_wait(&open_changed, &open_lock);
        print_counters();
        pthread_mutex_unlock(&open_lock);
    }
}
