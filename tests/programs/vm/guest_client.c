// The load of the kernel boot tests: an exact number of requests over an exact
// number of connections.
//
// In: PORT CONNECTIONS REQUESTS keep|close PATH...: with `keep` each connection
// is one thread that sends its share of the requests one after another; with
// `close` it opens a new connection for each of them. Request number i asks for
// path i modulo the number of paths.
// Out: one line `requests N failed N connections N`; the exit status is 0 only
// if every request was answered `200` with a whole body.
// It retries nothing: an unanswered request is a failed one.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, RESPONSE_BYTES_MAX = 4096 };

static uint16_t port;
static unsigned long requests, connections;
static int close_each;
static char **paths;
static unsigned long path_count;
static atomic_ulong answered, opened;

static int open_connection(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    opened++;
    return fd;
}

// 0 when a whole response with status 200 was read.
static int request(int fd, const char *path) {
    char text[RESPONSE_BYTES_MAX];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: guest\r\n%s\r\n", path,
                          close_each ? "Connection: close\r\n" : "");
    if (send(fd, text, (size_t)length, MSG_NOSIGNAL) != length)
        return -1;
    size_t filled = 0;
    for (;;) {
        ssize_t got = recv(fd, text + filled, sizeof text - 1 - filled, 0);
        if (got <= 0)
            return -1;
        filled += (size_t)got;
        text[filled] = '\0';
        char *head_end = strstr(text, "\r\n\r\n");
        char *body_length = strstr(text, "Content-Length: ");
        if (head_end == NULL || body_length == NULL)
            continue;
        size_t whole = (size_t)(head_end + 4 - text) + strtoul(body_length + 16, NULL, 10);
        if (filled > whole || whole >= sizeof text)
            return -1;
        if (filled == whole)
            return strncmp(text, "HTTP/1.1 200 ", 13) == 0 ? 0 : -1;
    }
}

static void *send_share(void *argument) {
    unsigned long index = (unsigned long)(uintptr_t)argument;
    int fd = -1;
    for (unsigned long i = index; i < requests; i += connections) {
        if (fd < 0)
            fd = open_connection();
        if (fd < 0)
            continue;
        int failed = request(fd, paths[i % path_count]) != 0;
        if (!failed)
            answered++;
        if (failed || close_each) {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: guest_client PORT CONNECTIONS REQUESTS keep|close PATH...\n");
        return 2;
    }
    port = (uint16_t)atoi(argv[1]);
    connections = strtoul(argv[2], NULL, 10);
    requests = strtoul(argv[3], NULL, 10);
    close_each = strcmp(argv[4], "close") == 0;
    paths = argv + 5;
    path_count = (unsigned long)(argc - 5);
    if (connections < 1 || connections > CONNECTIONS_MAX) {
        fprintf(stderr, "guest_client: CONNECTIONS must be 1 to %d\n", CONNECTIONS_MAX);
        return 2;
    }

    pthread_t threads[CONNECTIONS_MAX];
    for (unsigned long i = 0; i < connections; i++) {
        if (pthread_create(&threads[i], NULL, send_share, (void *)(uintptr_t)i) != 0) {
            perror("guest_client: pthread_create");
            return 1;
        }
    }
    for (unsigned long i = 0; i < connections; i++)
        pthread_join(threads[i], NULL);
    printf("requests %lu failed %lu connections %lu\n", requests, requests - answered, opened);
    return answered == requests ? 0 : 1;
}
