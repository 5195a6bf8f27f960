// A server for what the other one leaves out: unix sockets, IPv6, an allocator
// that is loaded while it runs, operator new of that allocator.
//
// In:  PORT (served on 127.0.0.1 and on [::1]), PATH of a unix socket, LIBRARY
//      of an allocator to be loaded on demand.
// Out: GET /load            loads the library
//      GET /plain/<bytes>   malloc and free of the C library
//      GET /loaded/<bytes>  malloc and free of the loaded library
//      GET /new/<bytes>     operator new and delete of the loaded library
// Each connection has a thread; a request allocates what its path says and
// nothing else. Deliberately not here: anything that knows memtrace.

#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef void *(*allocate_function)(size_t);
typedef void (*release_function)(void *);

static const char *library;
static allocate_function loaded_malloc, loaded_new;
static release_function loaded_free, loaded_delete;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int load(void)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        return 0;
    loaded_malloc = (allocate_function)dlsym(handle, "malloc");
    loaded_free = (release_function)dlsym(handle, "free");
    loaded_new = (allocate_function)dlsym(handle, "_Znwm");
    loaded_delete = (release_function)dlsym(handle, "_ZdlPv");
    return loaded_malloc && loaded_free && loaded_new && loaded_delete;
}

static int use(allocate_function allocate, release_function release, const char *size)
{
    if (allocate == NULL)
        return 0;
    size_t bytes = strtoul(size, NULL, 10);
    char *block = allocate(bytes);
    if (block == NULL)
        return 0;
    memset(block, 1, bytes);
    release(block);
    return 1;
}

static int answer(const char *path)
{
    if (strcmp(path, "/load") == 0)
        return load();
    if (strncmp(path, "/plain/", 7) == 0)
        return use(malloc, free, path + 7);
    if (strncmp(path, "/loaded/", 8) == 0)
        return use(loaded_malloc, loaded_free, path + 8);
    if (strncmp(path, "/new/", 5) == 0)
        return use(loaded_new, loaded_delete, path + 5);
    return 0;
}

static void *serve(void *argument)
{
    int connection = (int)(long)argument;
    char head[2048];
    size_t have = 0;
    for (;;) {
        ssize_t got = recv(connection, head + have, sizeof(head) - 1 - have, 0);
        if (got <= 0)
            break;
        have += (size_t)got;
        head[have] = 0;
        if (strstr(head, "\r\n\r\n") == NULL)
            continue;
        have = 0;
        char path[256];
        int good = sscanf(head, "GET %255s", path) == 1 && answer(path);
        const char *response = good
            ? "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
            : "HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nno\n";
        if (send(connection, response, strlen(response), MSG_NOSIGNAL) < 0)
            break;
    }
    close(connection);
    return NULL;
}

static void *accept_all(void *argument)
{
    int listener = (int)(long)argument;
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0)
            fail("accept");
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(long)connection) != 0)
            fail("pthread_create");
        pthread_detach(thread);
    }
    return NULL;
}

static int listen_at(int family, const struct sockaddr *address, socklen_t length)
{
    int listener = socket(family, SOCK_STREAM, 0);
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (family == AF_INET6)
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(listener, address, length) < 0 || listen(listener, 64) < 0)
        fail("listen");
    return listener;
}

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "usage: kinds_server PORT PATH LIBRARY\n");
        return 2;
    }
    in_port_t port = htons((in_port_t)atoi(arguments[1]));
    library = arguments[3];
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    snprintf(local.sun_path, sizeof(local.sun_path), "%s", arguments[2]);
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listeners[] = {
        listen_at(AF_UNIX, (struct sockaddr *)&local, sizeof(local)),
        listen_at(AF_INET6, (struct sockaddr *)&six, sizeof(six)),
    };
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, accept_all, (void *)(long)listeners[i]) != 0)
            fail("pthread_create");
    }
    // Last, since whoever waits for the server tries this one.
    accept_all((void *)(long)listen_at(AF_INET, (struct sockaddr *)&four, sizeof(four)));
}
